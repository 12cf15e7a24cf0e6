"""What students write in notebook 02, by mistake or as a matter of taste.

The name of a mistake tells its part: AU the autoencoder, DS the same draws for all, VY the variety, KS the KL by
sampling, EB the ELBO, QB the equivalent beta, AC active units; BE are those of the catalogue.
"""

RECON = "recon = self.decoder(mu)"
Z = "z = torch.randn(num_samples, latent_dim, device=weight.device, dtype=weight.dtype)"
DECODE = "images[name] = decoder.eval()(z)"
AVERAGE = "probabilities.mean(dim=0)"
ENTROPY = "torch.special.entr(average).sum()"
POSTERIOR = "Normal(mu, torch.exp(0.5 * logvar))"
DRAWS = "posterior.sample((num_samples,))"
RATIO = "(posterior.log_prob(z) - prior.log_prob(z)).sum(dim=2)"
ERROR = "0.5 * (recon - x).pow(2).flatten(1).sum(dim=1).mean()"
RATE = "kl_divergence(mu, logvar).sum(dim=1).mean()"
LOSS = "half_squared_error + beta * kl"
BETA = "beta * num_pixels / (2 * latent_dim)"
VARIANCE = "mu.var(dim=0)"
COUNT = "int((variance > threshold).sum())"

# name: (exercise, text of the finished version, what a student wrote, what the hint must hold)
MISTAKES = {
    "AU sample": ("2.1", RECON, "recon = self.decoder(mu + torch.randn_like(mu) * torch.exp(0.5 * logvar))", "an autoencoder has no noise"),
    "AU as in 01": ("2.1", RECON, "recon = self.decoder(mu + torch.randn_like(mu) * torch.exp(0.5 * logvar) if self.training else mu)", "In train mode a sample"),
    "AU logvar": ("2.1", RECON, "recon = self.decoder(logvar)", "logvar is decoded"),
    "AU x": ("2.1", RECON, "recon = self.decoder(self.encoder(x)[0])", "the encoder 2 times"),
    "AU detached": ("2.1", RECON, "recon = self.decoder(mu.detach())", "gradient"),
    "AU unit noise": ("2.1", RECON, "recon = self.decoder(mu + torch.randn_like(mu))", "something other than mu"),
    "AU tanh": ("2.1", RECON, "recon = torch.tanh(self.decoder(mu))", "as it is"),
    "AU eval": ("2.1", RECON, "self.eval(); recon = self.decoder(mu)", "changes the mode"),
    "BE02 draws of its own": ("2.1", DECODE, "images[name] = decoder.eval()(torch.randn(num_samples, latent_dim).to(weight))", "draw z once"),
    "DS train mode": ("2.1", DECODE, "images[name] = decoder(z)", "train mode"),
    "DS rand": ("2.1", Z, Z.replace("randn", "rand"), "never negative"),
    "DS one code": ("2.1", Z, Z.replace("num_samples, latent_dim", "1, latent_dim") + ".expand(num_samples, -1)", "not one"),
    "DS turned": ("2.1", Z, Z.replace("num_samples, latent_dim", "latent_dim, num_samples"), "shape"),
    "DS seeded": ("2.1", Z, f"torch.manual_seed(0); {Z}", "seed once"),
    "DS on the CPU": ("2.1", Z, "z = torch.randn(num_samples, latent_dim)", "GPU"),
    "DS dtype": ("2.1", Z, "z = torch.randn(num_samples, latent_dim, device=weight.device)", "dtypes"),
    "DS first decoder": ("2.1", DECODE, "images[name] = next(iter(decoders.values())).eval()(z)", "never called"),
    "DS scaled": ("2.1", Z, f"{Z} * 2", "N(0, I)"),
    "VY doubt": ("2.1", ENTROPY, "torch.special.entr(probabilities).sum(dim=1).mean()", "the doubt"),
    "VY sign": ("2.1", ENTROPY, "(average * average.log()).sum()", "never negative"),
    "VY bits": ("2.1", ENTROPY, "-(average * average.log2()).sum()", "in bits"),
    "VY zero": ("2.1", ENTROPY, "-(average * average.log()).sum()", "0 ln 0"),
    "VY no p": ("2.1", ENTROPY, "-average.log().sum()", "multiplied by its p"),
    "VY mean": ("2.1", ENTROPY, "torch.special.entr(average).mean()", "where they are added up"),
    "VY no sum": ("2.1", ENTROPY, "torch.special.entr(average)", "a number per class"),
    "VY wrong dim": ("2.1", AVERAGE, "probabilities.mean(dim=1)", "over the images (dim=0)"),
    "VY summed": ("2.1", AVERAGE, "probabilities.sum(dim=0)", "not averaged"),
    "VY exp": ("2.1", ENTROPY, "torch.special.entr(average).sum().exp()", "e to the entropy"),
    "VY share": ("2.1", ENTROPY, "torch.special.entr(average).sum() / math.log(len(average))", "divided by ln"),
    "VY softmax": ("2.1", AVERAGE, "probabilities.softmax(dim=1).mean(dim=0)", "through a softmax again"),
    "BE04 sign": ("2.2", RATIO, "(prior.log_prob(z) - posterior.log_prob(z)).sum(dim=2)", "never negative"),
    "BE06 mean": ("2.2", RATIO, "(posterior.log_prob(z) - prior.log_prob(z)).mean(dim=2)", "add up over the dimensions"),
    "KS not summed": ("2.2", RATIO, "posterior.log_prob(z) - prior.log_prob(z)", "a number per dimension"),
    "KS all": ("2.2", RATIO, "(posterior.log_prob(z) - prior.log_prob(z)).sum()", "shape"),
    "KS wrong dim": ("2.2", RATIO, "(posterior.log_prob(z) - prior.log_prob(z)).sum(dim=1)", "adds up the images"),
    "KS no prior": ("2.2", RATIO, "posterior.log_prob(z).sum(dim=2)", "ln p(z) is missing"),
    "KS no posterior": ("2.2", RATIO, "-prior.log_prob(z).sum(dim=2)", "ln q(z|x) is missing"),
    "KS added": ("2.2", RATIO, "(posterior.log_prob(z) + prior.log_prob(z)).sum(dim=2)", "are added"),
    "KS variance": ("2.2", POSTERIOR, "Normal(mu, logvar.exp())", "standard deviation, and the variance"),
    "KS logvar": ("2.2", POSTERIOR, "Normal(mu, logvar)", "standard deviation that is not positive"),
    "KS from the prior": ("2.2", DRAWS, "prior.sample((num_samples,))", "drawn from the prior"),
    "KS mu": ("2.2", DRAWS, "mu.expand(num_samples, *mu.shape)", "z is mu itself"),
    "KS one draw": ("2.2", DRAWS, "posterior.sample().expand(num_samples, *mu.shape)", "independent codes"),
    "KS few": ("2.2", DRAWS, "posterior.sample((1,))", "draws"),
    "KS many": ("2.2", DRAWS, "posterior.sample((1000,))", "not more"),
    "KS one noise": ("2.2", DRAWS, "mu + torch.randn(num_samples, 1, mu.shape[1]) * torch.exp(0.5 * logvar)", "same noise"),
    "KS closed form": ("2.2", "log_ratio.mean(dim=0)", "torch.distributions.kl_divergence(posterior, prior).sum(1)", "closed form"),
    "KS sum": ("2.2", "log_ratio.mean(dim=0)", "log_ratio.sum(dim=0)", "take their mean"),
    "KS mean of all": ("2.2", "log_ratio.mean(dim=0)", "log_ratio.mean()", "averaged over the batch as well"),
    "KS wrong mean": ("2.2", "log_ratio.mean(dim=0)", "log_ratio.mean(dim=1)", "dimension 0"),
    "KS no mean": ("2.2", "log_ratio.mean(dim=0)", "log_ratio", "per draw"),
    "KS seeded": ("2.2", f"z = {DRAWS}", f"torch.manual_seed(1); z = {DRAWS}", "seed once"),
    "KS on the CPU": ("2.2", DRAWS, "mu + torch.randn(num_samples, *mu.shape) * torch.exp(0.5 * logvar)", "GPU"),
    "BE08 mean over D": ("2.3", RATE, "kl_divergence(mu, logvar).mean()", "reduce both terms in the same way"),
    "BE08 mean over pixels": ("2.3", ERROR, "0.5 * (recon - x).pow(2).mean()", "mean over the pixels"),
    "BE08 mse": ("2.3", ERROR, "__import__('torch').nn.functional.mse_loss(recon, x)", "mean over the pixels"),
    "BE10 no half": ("2.3", ERROR, ERROR.replace("0.5 * ", ""), "The half is missing"),
    "EB batch": ("2.3", ERROR, "0.5 * (recon - x).pow(2).sum()", "the mean over the batch"),
    "EB no half, batch": ("2.3", ERROR, "(recon - x).pow(2).sum()", "The half is missing"),
    "EB channels": ("2.3", ERROR, "0.5 * (recon - x).pow(2).sum(dim=1).mean()", "channels alone"),
    "EB not squared": ("2.3", ERROR, "0.5 * (recon - x).abs().flatten(1).sum(dim=1).mean()", "square it"),
    "EB per image": ("2.3", ERROR, "0.5 * (recon - x).pow(2).flatten(1).sum(dim=1)", "shape"),
    "EB rate batch": ("2.3", RATE, "kl_divergence(mu, logvar).sum()", "the mean over the batch"),
    "EB rate per image": ("2.3", RATE, "kl_divergence(mu, logvar).sum(dim=1)", "per image"),
    "EB rate halved": ("2.3", RATE, f"0.5 * {RATE}", "halved once too often"),
    "EB swapped": ("2.3", RATE, "kl_divergence(logvar, mu).sum(dim=1).mean()", "of mu and logvar"),
    "EB minus": ("2.3", LOSS, "half_squared_error - beta * kl", "not subtracted"),
    "EB ELBO": ("2.3", LOSS, "-half_squared_error - beta * kl", "wrong sign"),
    "EB no beta": ("2.3", LOSS, "half_squared_error + kl", "beta is never used"),
    "EB beta on both": ("2.3", LOSS, "beta * (half_squared_error + kl)", "the KL alone"),
    "EB no guard": ("2.3", "    require_batch(recon, x, mu, logvar, beta)\n", "", "refuses"),
    "EB detached": ("2.3", RATE, f"{RATE}.detach()", "gradient"),
    "EB in place": ("2.3", f"loss = {LOSS}", "loss = half_squared_error; loss += beta * kl", "in place"),
    "QB no half": ("2.3", BETA, "beta * num_pixels / latent_dim", "The 2 is missing"),
    "QB no D": ("2.3", BETA, "beta * num_pixels / 2", "D is missing"),
    "QB turned": ("2.3", BETA, "2 * beta * latent_dim / num_pixels", "turned over"),
    "QB swapped": ("2.3", BETA, "beta * latent_dim / (2 * num_pixels)", "changed places"),
    "QB bracket": ("2.3", BETA, "beta * num_pixels / 2 * latent_dim", "in brackets"),
    "QB 51.2": ("2.3", BETA, "51.2 / latent_dim", "use the arguments"),
    "QB 1024": ("2.3", BETA, "beta * 1024 / (2 * latent_dim)", "1024 is typed in"),
    "QB no N": ("2.3", BETA, "beta / latent_dim", "N is missing"),
    "QB no beta": ("2.3", BETA, "num_pixels / (2 * latent_dim)", "beta itself"),
    "QB //": ("2.3", BETA, "beta * num_pixels // (2 * latent_dim)", "behind the point"),
    "BE12 posterior variance": ("2.4", COUNT, "int((mu.exp().mean(0) < 1).sum())", "active"),
    "AC std": ("2.4", VARIANCE, "mu.std(dim=0)", "standard deviation is compared"),
    "AC below": ("2.4", COUNT, "int((variance < threshold).sum())", "below the threshold"),
    "AC wrong dim": ("2.4", VARIANCE, "mu.var(dim=1)", "over the images it is dim=0"),
    "AC mean square": ("2.4", VARIANCE, "mu.pow(2).mean(dim=0)", "a constant mean is not activity"),
    "AC size": ("2.4", VARIANCE, "mu.abs().mean(dim=0)", "a constant mean is not activity"),
    "AC typed in": ("2.4", COUNT, "int((variance > 0.01).sum())", "typed in"),
    "AC one variance": ("2.4", VARIANCE, "mu.var()", "one variance for every dimension"),
    "AC mask": ("2.4", COUNT, "variance > threshold", "an entry per dimension"),
    "AC entries": ("2.4", COUNT, "int((mu > threshold).sum())", "Single entries"),
    "AC in place": ("2.4", VARIANCE, "mu.sub_(mu.mean(dim=0)).pow(2).mean(dim=0)", "changed in place"),
}  # fmt: skip

# mistakes that cannot be made here, and why
IMPOSSIBLE = {
    "BE14": "no code: the question after exercise 2.3, answered with a measurement, makes it",
}

HARMLESS = {
    "z through encode": ("2.1", RECON, "z = mu\n        recon = self.decoder(z)"),
    "codes to the device": ("2.1", Z, "z = torch.randn(num_samples, latent_dim).to(weight)"),
    "randn of a list": ("2.1", Z, "z = torch.randn([num_samples, latent_dim]).to(weight.device, weight.dtype)"),
    "two lines": ("2.1", DECODE, "decoder.eval()\n        images[name] = decoder(z)"),
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
