"""A hands-on lesson on variational autoencoders: the finished pieces that the notebooks build.

model      Encoder, Decoder, reparameterize, VAE
loss       kl_divergence, recon_loss, vae_loss, elbo_loss
data       load_images, Loader: digits as tensors, offline first
train      train_step, train_epoch, evaluate, fit
checkpoint save_checkpoint, load_checkpoint: written whole or not at all
parallel   one run on several processes
speed      what makes a CPU train faster, with the same results
latent     encode_all, class_means, interpolate, sample_prior
plots      pictures and animations
checks     what an answer to an exercise is held against, one module a notebook
__main__   python -m vae_tutorial trains without a notebook
exercises  python -m vae_tutorial.exercises makes the exercise notebooks from the solutions

Import what you need from its module; importing the package itself loads nothing.
"""
