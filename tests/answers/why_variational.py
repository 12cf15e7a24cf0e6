"""What students write in notebook 02, and what the checks must say of it.

The mistakes that are rows of the tables in vae_tutorial/checks/why_variational.py are tested there, as rows; here are
those that its readers name, and those that the instructors' page quotes. The name of a mistake tells its part: AU the
autoencoder, DS the same draws for all, VY the marginal entropy, KS the KL by sampling, EB the ELBO, QB the equivalent
beta, AC active units; BE are those of the catalogue.
"""

RECON = "recon = self.decoder(mu)"
OUT = "return recon, mu, logvar"
NO_GRAD = "@torch.no_grad()\n"
Z = "z = torch.randn(num_samples, latent_dim, device=weight.device, dtype=weight.dtype)"
DECODE = "images[name] = decoder.eval()(z)"
AVERAGE = "probabilities.mean(dim=0)"
ENTROPY = "torch.special.entr(average).sum()"
POSTERIOR = "Normal(mu, torch.exp(0.5 * logvar))"
DRAWS = "posterior.sample((num_samples,))"
RATIO = "(posterior.log_prob(z) - prior.log_prob(z)).sum(dim=2)"
GUARD = '    assert recon.shape == x.shape, f"recon is {tuple(recon.shape)}, but x is {tuple(x.shape)}"\n'
GUARD_2 = '    assert len(x) == len(mu), f"{len(x)} images, but {len(mu)} codes"\n'
ERROR = "0.5 * (recon - x).pow(2).flatten(1).sum(dim=1).mean()"
RATE = "kl_divergence(mu, logvar).sum(dim=1).mean()"
LOSS = "half_squared_error + beta * kl"
BETA = "beta * num_pixels / (2 * latent_dim)"
VARIANCE = "mu.var(dim=0)"
COUNT = "int((variance > threshold).sum())"

# name: (exercise, text of the finished version, what a student wrote, what the sentence must hold)
MISTAKES = {
    "AU sample": ("2.1", RECON, "recon = self.decoder(mu + torch.randn_like(mu) * torch.exp(0.5 * logvar))", "In train mode there is noise in what is decoded"),
    "AU logvar": ("2.1", RECON, "recon = self.decoder(logvar if self.training else mu)", "In train mode logvar is decoded"),
    "AU doubled": ("2.1", RECON, "recon = self.decoder(2 * mu)", "behaves as if mu were doubled"),
    "AU x": ("2.1", RECON, "recon = self.decoder(self.encoder(x)[0])", "the encoder twice and the decoder once"),
    "AU detached": ("2.1", RECON, "recon = self.decoder(mu.detach())", "recon carries no gradient. Look at line"),
    "AU eval": ("2.1", RECON, "self.eval(); recon = self.decoder(mu)", "forward changes the mode"),
    "AU order": ("2.1", OUT, "return mu, recon, logvar", "forward returns mu where recon is expected"),
    "AU squeezed": ("2.1", RECON, "recon = self.decoder(mu).squeeze(0)", "recon of a single image"),
    "BE02 draws of its own": ("2.1", DECODE, "images[name] = decoder.eval()(torch.randn(num_samples, latent_dim).to(weight))", "draw z once, for all"),
    "DS train mode": ("2.1", DECODE, "images[name] = decoder(z)", "z is decoded in train mode"),
    "DS train mode afterwards": ("2.1", DECODE, f"{DECODE}; decoder.train()", "in train mode at the end"),
    "DS rand": ("2.1", Z, Z.replace("randn", "rand"), "z is uniform between 0 and 1"),
    "DS turned": ("2.1", Z, Z.replace("num_samples, latent_dim", "latent_dim, num_samples"), "A decoder gets a tensor of shape (8, 1024)"),
    "DS seeded": ("2.1", Z, f"generator = torch.Generator().manual_seed(0); {Z[:-1]}, generator=generator)", "Two calls decode the same z"),
    "DS first decoder": ("2.1", DECODE, "images[name] = next(iter(decoders.values())).eval()(z)", "The decoder 'two' is never called"),
    "DS too many": ("2.1", Z, Z.replace("num_samples", "1000"), "1000 codes are decoded, where num_samples = 1024"),
    "DS brightened": ("2.1", DECODE, "images[name] = decoder.eval()(z) / 2 + 0.5", "images['one'] is not what that decoder makes of z"),
    "DS list": ("2.1", "return images", "return list(images.values())", "decode_same returns a list of 2"),
    "DS keys": ("2.1", DECODE, "images[decoder] = decoder.eval()(z)", "decode_same returns a dictionary with other keys"),
    "DS gradient": ("2.1", NO_GRAD, "", "The images carry a gradient"),
    "VY zero": ("2.1", ENTROPY, "-(average * average.log()).sum()", "0 ln 0 counts as 0"),
    "VY small number": ("2.1", ENTROPY, "-((average + 1e-3) * (average + 1e-3).log()).sum() - 1e-3", "marginal_entropy(probabilities) is"),
    "VY certain": ("2.1", ENTROPY, "-((p := average.clamp(min=1e-3)) * p.log()).sum()", "0 ln 0 counts as 0"),
    "VY sum first": ("2.1", ENTROPY, "torch.special.entr(average.sum())", "marginal_entropy is 0, though several"),
    "VY mean": ("2.1", ENTROPY, "torch.special.entr(average).mean()", "mean stood in the place of sum"),
    "BE number of draws": ("2.2", "(num_samples,)", "num_samples", "a number where a size is expected"),
    "KS variance": ("2.2", POSTERIOR, "Normal(mu, logvar.exp())", "The variance is used as standard deviation"),
    "KS logvar": ("2.2", POSTERIOR, "Normal(mu, logvar)", "standard deviation that is not positive"),
    "KS not summed": ("2.2", RATIO, "posterior.log_prob(z) - prior.log_prob(z)", "one number per image and dimension"),
    "KS all": ("2.2", RATIO, "(posterior.log_prob(z) - prior.log_prob(z)).sum()", "one number for the whole batch"),
    "KS wrong dim": ("2.2", RATIO, "(posterior.log_prob(z) - prior.log_prob(z)).sum(dim=1)", "one number per dimension"),
    "KS wrong mean": ("2.2", "log_ratio.mean(dim=0)", "log_ratio.mean(dim=1)", "one number per draw: average"),
    "KS no mean": ("2.2", "log_ratio.mean(dim=0)", "log_ratio", "one number per draw and image"),
    "KS list": ("2.2", "log_ratio.mean(dim=0)", "log_ratio.mean(dim=0).tolist()", "kl_by_sampling returns ["),
    "KS squeezed": ("2.2", "log_ratio.mean(dim=0)", "log_ratio.mean(dim=0).squeeze()", "For one image of one dimension the result has shape ()"),
    "KS closed form": ("2.2", "log_ratio.mean(dim=0)", "torch.distributions.kl_divergence(posterior, prior).sum(1)", "closed form"),
    "KS no half": ("2.2", RATIO, "(z**2 - (z - mu) ** 2 / logvar.exp() - logvar).sum(dim=2)", "On average the estimate is about mu^2 - logvar + exp(logvar) - 1,"),
    "KS nan": ("2.2", RATIO, f"{RATIO} + logvar.sqrt().sum(dim=1)", "nan or infinite in places"),
    "KS many": ("2.2", DRAWS, "posterior.sample((1000,))", "where num_samples = 64 are expected"),
    "KS pairs": ("2.2", DRAWS, "posterior.sample((num_samples // 2,)).repeat_interleave(2, 0)", "The estimates vary as if each were the average of"),
    "KS one noise": ("2.2", DRAWS, "mu + torch.randn(num_samples, 1, mu.shape[1]) * posterior.stddev", "Images with the same posterior get the same estimate"),
    "KS seeded": ("2.2", f"z = {DRAWS}", "g = torch.Generator().manual_seed(1); z = mu + posterior.stddev * torch.randn(num_samples, *mu.shape, generator=g)", "Two calls use the same draws"),
    "KS n - 1": ("2.2", "log_ratio.mean(dim=0)", "log_ratio.sum(dim=0) / (num_samples - 1)", "With num_samples = 1"),
    "KS never negative": ("2.2", "log_ratio.mean(dim=0)", "log_ratio.mean(dim=0).clamp(min=0)", "No estimate is negative"),
    "KS densities": ("2.2", RATIO, "(posterior.log_prob(z).exp() / prior.log_prob(z).exp()).sum(dim=2)", "Of the estimates for 512 images, the average is"),
    "KS clamped": ("2.2", POSTERIOR, "Normal(mu, torch.exp(0.5 * logvar.clamp(-4, 3)))", "clamp nothing"),
    "BE08 mean over D": ("2.3", RATE, "kl_divergence(mu, logvar).mean()", "kl is averaged over D as well"),
    "BE08 mean over pixels": ("2.3", ERROR, "0.5 * (recon - x).pow(2).mean()", "half_squared_error is averaged over the pixels as well"),
    "BE08 mse": ("2.3", ERROR, "__import__('torch').nn.functional.mse_loss(recon, x)", "half_squared_error is doubled"),
    "BE10 no half": ("2.3", ERROR, ERROR.replace("0.5 * ", ""), "half_squared_error is doubled"),
    "EB other way round": ("2.3", ERROR, "0.5 * (recon - x).pow(2).flatten(1).mean(dim=1).sum()", "other way round"),
    "EB half squared": ("2.3", ERROR, "(0.5 * (recon - x)).pow(2).flatten(1).sum(dim=1).mean()", "half_squared_error is halved once too often"),
    "EB batch": ("2.3", ERROR, "0.5 * (recon - x).pow(2).sum()", "half_squared_error is added up over the batch"),
    "EB no half, batch": ("2.3", ERROR, "(recon - x).pow(2).sum()", "half_squared_error is doubled"),
    "EB batch twice": ("2.3", ERROR, f"{ERROR} / len(x)", "divided by the number of images once too often"),
    "EB per image": ("2.3", ERROR, "0.5 * (recon - x).pow(2).flatten(1).sum(dim=1)", "one number per image"),
    "EB not reduced": ("2.3", ERROR, "0.5 * (recon - x).pow(2)", "half_squared_error has shape (5, 1, 32, 32), where"),
    "EB sign": ("2.3", RATE, f"-{RATE}", "of the wrong sign"),
    "EB beta early": ("2.3", RATE, f"beta * {RATE}", "kl is multiplied by beta already"),
    "EB half and mean": ("2.3", RATE, "0.5 * kl_divergence(mu, logvar).mean()", "kl is halved once too often"),
    "EB minus": ("2.3", LOSS, "half_squared_error - beta * kl", "In loss, the KL is subtracted"),
    "EB squared": ("2.3", LOSS, "half_squared_error + beta * kl**2", "loss is not half_squared_error + beta * kl"),
    "EB no guard": ("2.3", GUARD, "", "elbo_loss takes recon and x of different shapes"),
    "EB no second guard": ("2.3", GUARD_2, "", "elbo_loss takes fewer codes than images"),
    "EB detached": ("2.3", RATE, f"{RATE}.detach()", "no gradient reaches mu"),
    "EB in place": ("2.3", f"loss = {LOSS}", "loss = half_squared_error; loss += beta * kl", "half_squared_error is changed in place"),
    "EB default": ("2.3", "beta=1.0", "beta=0.1", "elbo_loss without a beta must use 1.0"),
    "QB no beta": ("2.3", BETA, "num_pixels / (2 * latent_dim)", "behaves as if beta were left out"),
    "AC in place": ("2.4", VARIANCE, "mu.sub_(mu.mean(dim=0)).pow(2).mean(dim=0)", "changes mu in place"),
    "AC listed": ("2.4", COUNT, "[one for one in variance if one > threshold]", "is a list of 4, where 4 is expected"),
}  # fmt: skip

# right answers with a remark: (exercise, text, what a student wrote, what the remark must hold)
REMARKS = {
    "AU on the CPU": ("2.1", RECON, "recon = self.decoder(mu + torch.zeros(mu.shape))", "On a GPU"),
    "DS on the CPU": ("2.1", Z, "z = torch.randn(num_samples, latent_dim)", "On a GPU"),
    "DS dtype": ("2.1", Z, "z = torch.randn(num_samples, latent_dim, device=weight.device)", "float32 only"),
    "DS numpy": ("2.1", Z, "z = torch.tensor(__import__('numpy').random.randn(num_samples, latent_dim)).to(weight)", "does not fix these draws"),
    "VY on the CPU": ("2.1", AVERAGE, "(torch.ones(len(probabilities)) / len(probabilities)) @ probabilities", "On a GPU"),
    "KS on the CPU": ("2.2", DRAWS, "mu + torch.randn(num_samples, *mu.shape) * torch.exp(0.5 * logvar)", "On a GPU"),
    "KS numpy": ("2.2", DRAWS, "mu + torch.tensor(__import__('numpy').random.randn(num_samples, *mu.shape)).to(mu) * posterior.stddev", "does not fix these draws"),
    "EB 1,024 numbers": ("2.3", ERROR, "0.5 * (recon - x).view(-1, 1024).pow(2).sum(dim=1).mean()", "images of one channel"),
    "EB 512": ("2.3", ERROR, "512 * __import__('torch').nn.functional.mse_loss(recon, x)", "images of one channel"),
    "AC numpy": ("2.4", VARIANCE, "torch.tensor(mu.numpy().var(axis=0))", "On a GPU"),
}  # fmt: skip

# mistakes that cannot be made here, and why
IMPOSSIBLE = {
    "BE12": "active_units is given the means alone; the text above it says why the posterior's variance does not tell",
    "BE14": "no code: the question after exercise 2.3, answered with a measurement, makes it",
}

HARMLESS = {
    "z through encode": ("2.1", RECON, "z = mu\n        recon = self.decoder(z)"),
    "codes to the device": ("2.1", Z, "z = torch.randn(num_samples, latent_dim).to(weight)"),
    "randn of a list": ("2.1", Z, "z = torch.randn([num_samples, latent_dim]).to(weight.device, weight.dtype)"),
    "two lines": ("2.1", DECODE, "decoder.eval()\n        images[name] = decoder(z)"),
    "decoded in parts": ("2.1", DECODE, "decoder.eval(); images[name] = __import__('torch').cat([decoder(part) for part in z.split(100)])"),
    "train(False)": ("2.1", DECODE, "images[name] = decoder.train(False)(z)"),
    "a sum by hand": ("2.1", ENTROPY, "-(average * (average + 1e-12).log()).sum()"),
    "where": ("2.1", ENTROPY, "-torch.where(average > 0, average * average.clamp(min=1e-30).log(), 0).sum()"),
    "xlogy": ("2.1", ENTROPY, "-torch.xlogy(average, average).sum()"),
    "Categorical": ("2.1", ENTROPY, "torch.distributions.Categorical(probs=average).entropy()"),
    "a mean by hand": ("2.1", AVERAGE, "probabilities.sum(0) / probabilities.shape[0]"),
    "root of exp(logvar)": ("2.2", POSTERIOR, "Normal(mu, logvar.exp().sqrt())"),
    "rsample with a list": ("2.2", DRAWS, "posterior.rsample([num_samples])"),
    "noise by hand": ("2.2", DRAWS, "mu + torch.randn(num_samples, *mu.shape).to(mu) * torch.exp(0.5 * logvar)"),
    "randn_like": ("2.2", DRAWS, "mu + torch.randn_like(mu.expand(num_samples, *mu.shape)) * posterior.stddev"),
    "a loop": ("2.2", DRAWS, "torch.stack([posterior.sample() for _ in range(num_samples)])"),
    "sums apart": ("2.2", RATIO, "posterior.log_prob(z).sum(-1) - prior.log_prob(z).sum(-1)"),
    "formula": ("2.2", RATIO, "0.5 * (z**2 - (z - mu) ** 2 / logvar.exp() - logvar).sum(-1)"),
    "a mean with a sum": ("2.2", "log_ratio.mean(dim=0)", "log_ratio.sum(0) / num_samples"),
    "mse_loss, summed": ("2.3", ERROR, "__import__('torch').nn.functional.mse_loss(recon, x, reduction='sum') / (2 * len(x))"),
    "error over three dimensions": ("2.3", ERROR, "((recon - x) ** 2).sum(dim=(1, 2, 3)).mean() / 2"),
    "sum over the batch": ("2.3", ERROR, "(recon - x).square().sum() / x.shape[0] * 0.5"),
    "rate by hand": ("2.3", RATE, "kl_divergence(mu, logvar).sum() / len(mu)"),
    "mean first": ("2.3", RATE, "kl_divergence(mu, logvar).mean(0).sum()"),
    "the other order": ("2.3", LOSS, "kl * beta + half_squared_error"),
    "steps": ("2.3", BETA, "(num_pixels / 2) * beta / latent_dim"),
    "0.5": ("2.3", BETA, "0.5 * beta * num_pixels / latent_dim"),
    "biased": ("2.4", VARIANCE, "mu.var(dim=0, unbiased=False)"),
    "by hand": ("2.4", VARIANCE, "(mu - mu.mean(dim=0)).pow(2).mean(dim=0)"),
    "std squared": ("2.4", VARIANCE, "mu.std(0) ** 2"),
    "item": ("2.4", COUNT, "(variance > threshold).sum().item()"),
    "a tensor count": ("2.4", COUNT, "(variance > threshold).sum()"),
    "python": ("2.4", COUNT, "sum(1 for v in variance if v > threshold)"),
    "count_nonzero": ("2.4", COUNT, "torch.count_nonzero(variance > threshold).item()"),
}  # fmt: skip
