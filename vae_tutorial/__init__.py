"""A hands-on lesson on variational autoencoders: the finished pieces that the notebooks build.

model      Encoder, Decoder, reparameterize, VAE; Autoencoder, ConditionalVAE
loss       kl_divergence, recon_loss, vae_loss, elbo_loss
data       load_images, Loader: digits as tensors, offline first
train      train_step, train_epoch, evaluate, fit
latent     codes: encode, average, walk, draw, map, directions
metrics    ELBO in nats, tighter bounds, KL by sampling, classifier probes, AUROC
plots      pictures and animations
speed      faster training on a CPU, with the same results up to rounding
__main__   python -m vae_tutorial trains without a notebook, resumes, runs on several processes
checks     compare an answer to an exercise with the finished version, one module per notebook
authoring  make exercise notebooks from solution notebooks, and a table of grades from submissions

Import each definition from its module. `import vae_tutorial` alone loads none of the modules.
"""
