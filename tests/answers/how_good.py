"""What students write in notebook 04, by mistake or as a matter of taste.

The mistakes that are rows of the tables in vae_tutorial/checks/how_good.py are tested there, as rows; here are those that
its readers and the families name. The name of a mistake tells the exercise's part: GL is the Gaussian likelihood, EB the
ELBO, AV its average, LW the weights, IW the bound, GB the groups, NM the nearest mean, LP the linear probe, WC the set
without a class, AU the AUROC, EX the surprise above the line.
"""

DENSITY = "-0.5 * math.log(2 * math.pi) - log_sigma - 0.5 * ((x - recon) / log_sigma.exp()).pow(2)"
ADDED = "log_density.flatten(1).sum(dim=1)"
DRAWN = "model.decoder(reparameterize(mu, logvar))"
BOUND = "gaussian_log_likelihood(x, recon, model.log_sigma) - kl_divergence(mu, logvar).sum(dim=1)"
TOTAL = "total = sum(elbo(model, x.to(device)).sum() for x in images.split(batch_size))"
MEAN = "mean = total.item() / len(images)"
GUARD = '    assert x.shape == recon.shape, f"x is {tuple(x.shape)}, but recon is {tuple(recon.shape)}"\n'
IN_EVAL = "with eval_mode(model), torch.no_grad():"
IN_BLOCK = f"    {IN_EVAL}\n        {TOTAL}\n"
Z = "z = reparameterize(mu, logvar)"
FIT = "log_likelihood = gaussian_log_likelihood(x, model.decoder(z), model.log_sigma)"
RATIO = "(prior.log_prob(z) - posterior.log_prob(z)).sum(dim=1)"
LOGSUMEXP = "torch.logsumexp(log_w, dim=0) - math.log(len(log_w))"
GROUPS = "groups = log_w.split(group_size)"
AVERAGE = "torch.stack([iwae_bound(group) for group in groups]).mean(dim=0)"
CDIST = "torch.cdist(codes, means)"
LOSS = "F.cross_entropy(probe(codes), labels)"
AREA = "(above.float().mean() + 0.5 * equal.float().mean()).item()"
SLOPE = "(centred * (train_surprise - train_surprise.mean())).sum() / centred.pow(2).sum()"
LINE = "train_surprise.mean() + slope * (outline - train_outline.mean())"
WEIGHTS = f"""    rows = []
    for _ in range(num_samples):
        # a new draw for every image: (B, D)
        {Z}
        # ln p(x|z) of each image: (B,)
        {FIT}
        # ln p(z) - ln q(z|x), of all D dimensions together: (B,)
        log_ratio = {RATIO}
        rows.append(log_likelihood + log_ratio)
    return torch.stack(rows)
"""
AT_ONCE = """    z = posterior.sample((num_samples,))
    recon = model.decoder(z.flatten(0, 1)).unflatten(0, (num_samples, len(mu)))
    fit = torch.stack([gaussian_log_likelihood(x, each, model.log_sigma) for each in recon])
    return fit + (prior.log_prob(z) - posterior.log_prob(z)).sum(2)
"""

# name: (exercise, text of the finished version, what a student wrote, what the sentence must hold)
MISTAKES = {
    "GL no constant": ("4.1", DENSITY, "-log_sigma - 0.5 * ((x - recon) / log_sigma.exp()).pow(2)", "the constant is missing"),
    "GL no half": ("4.1", DENSITY, DENSITY.replace("- 0.5 * ((", "- (("), "d^2 / sigma^2 has the factor -1, where -0.5"),
    "GL plus log sigma": ("4.1", DENSITY, DENSITY.replace("- log_sigma ", "+ log_sigma "), "ln sigma has the wrong sign"),
    "GL not divided": ("4.1", DENSITY, DENSITY.replace(" / log_sigma.exp()", ""), "d^2 stands where d^2 / sigma^2 is expected"),
    "GL once": ("4.1", DENSITY, DENSITY.replace("- log_sigma ", "- log_sigma / x[0].numel() "), "(ln sigma once per image) stands where ln sigma"),
    "GL two terms": ("4.1", DENSITY, DENSITY.replace("- log_sigma ", "- log_sigma.exp() ").replace("-0.5 * math", "0.5 * math"), "the constant has the wrong sign and sigma stands where"),
    "GL minus": ("4.1", ADDED, f"-{ADDED}", "this is -1 times what is expected"),
    "GL not added": ("4.1", ADDED, "log_density", "has shape (4, 2, 5, 3), where (4,) is expected: one number per image"),
    "GL density": ("4.1", ADDED, "log_density.flatten(1).sum(dim=1).exp()", "behaves as if the result were passed through exp"),
    "GL sigma is cut off": ("4.1", DENSITY, DENSITY.replace("log_sigma", "log_sigma.detach()"), "no gradient reaches log_sigma"),
    "GL detached": ("4.1", ADDED, f"{ADDED}.detach()", "gaussian_log_likelihood carries no gradient"),
    "GL clamped": ("4.1", DENSITY, f"({DENSITY}).clamp(min=-50)", "not far out: clamp nothing"),
    "GL guard": ("4.1", GUARD, "", "so PyTorch compares all pairs"),
    "GL in place": ("4.1", "(x - recon)", "x.sub_(recon.detach())", "changes x in place"),
    "EB mu": ("4.1", DRAWN, "model.decoder(mu)", "mu is decoded"),
    "EB model(x)": ("4.1", DRAWN, "model(x)[0]", "mu is decoded, as by model(x) in eval mode"),
    "EB two draws": ("4.1", DRAWN, f"({DRAWN} + {DRAWN}) / 2", "2048 codes are decoded"),
    "EB no KL": ("4.1", BOUND, BOUND.split(" - ")[0], "elbo is ln p(x|z): KL is missing"),
    "EB twice the KL": ("4.1", BOUND, BOUND.replace(" - kl", " - 2 * kl"), "KL has the factor -2"),
    "EB mean": ("4.1", BOUND, f"({BOUND}).mean()", "averaged over everything already"),
    "EB uniform": ("4.1", DRAWN, "model.decoder(mu + torch.rand_like(mu) * (0.5 * logvar).exp())", "The noise is uniform"),
    "EB seeded": ("4.1", DRAWN, "model.decoder(mu + torch.randn(mu.shape, generator=torch.Generator().manual_seed(0)) * (0.5 * logvar).exp())", "Two calls draw the same z"),
    "EB train mode": ("4.1", f"recon = {DRAWN}", f"model.train(); recon = {DRAWN}", "elbo leaves the model, or a part of it, in another mode"),
    "EB tanh": ("4.1", f"recon = {DRAWN}", f"recon = {DRAWN}; recon = torch.tanh(recon)", "behaves as if recon were passed through tanh"),
    "AV gradients": ("4.1", IN_EVAL, "with eval_mode(model):", "runs with gradients"),
    "AV train mode": ("4.1", IN_EVAL, "with torch.no_grad():", "runs in train mode"),
    "AV mode left": ("4.1", IN_EVAL, "model.eval()\n    with torch.no_grad():", "The model is left in another mode than before"),
    "AV frozen": ("4.1", IN_EVAL, f"model.requires_grad_(False)\n    {IN_EVAL}", "frozen for good"),
    "AV switched off": ("4.1", IN_EVAL, "torch.set_grad_enabled(False)\n    with eval_mode(model):", "Gradients stay switched off"),
    "AV at once": ("4.1", TOTAL, "total = elbo(model, images.to(device)).sum()", "10 images go through the model at once, where batch_size is 4"),
    "AV full batches": ("4.1", "for x in images.split(batch_size))", "for x in images.split(batch_size) if len(x) == batch_size)", "Only 8 of 10 images are looked at"),
    "AV never": ("4.1", TOTAL, "total = images.sum()", "mean_elbo never runs the model"),
    "LW mu": ("4.2", Z, "z = mu", "mu is decoded"),
    "LW fewer": ("4.2", "range(num_samples)", "range(num_samples - 1)", "1792 codes are decoded"),
    "LW no p": ("4.2", RATIO, "-posterior.log_prob(z).sum(dim=1)", "ln p(z) is missing"),
    "LW sign": ("4.2", RATIO, "(posterior.log_prob(z) - prior.log_prob(z)).sum(dim=1)", "ln p(z) has the wrong sign and ln q(z|x) has the wrong sign"),
    "LW list": ("4.2", "return torch.stack(rows)", "return rows", "a list of 8, where a tensor of shape (8, 256) is expected"),
    "LW wide noise": ("4.2", Z, "z = mu + 1.3 * torch.randn_like(mu) * (0.5 * logvar).exp()", "1.3 times as wide"),
    "IW typed in": ("4.2", LOGSUMEXP, "torch.logsumexp(log_w, dim=0) - math.log(128)", "divided by 128, where K, here 7, is expected"),
    "IW batch axis": ("4.2", LOGSUMEXP, "torch.logsumexp(log_w, dim=1) - math.log(len(log_w))", "has shape (7,), where (4,) is expected"),
    "IW overflow": ("4.2", LOGSUMEXP, "log_w.exp().mean(dim=0).log()", "Where ln w is far from 0 the bound fails"),
    "GB sum": ("4.2", AVERAGE, AVERAGE.replace("mean", "sum"), "behaves as if sum stood in the place of mean"),
    "NM one code": ("4.3", "distances.argmin(dim=1)", "distances.argmin(dim=1).squeeze()", "right, but has shape (), not (1,)"),
    "LP probe": ("4.3", "    codes = codes.detach()\n", "    codes = codes\n", "would go on into the encoder"),
    "LP in place": ("4.3", "codes = codes.detach()", "codes = codes.detach_().requires_grad_(False)", "codes loses its history for the caller too"),
    "LP one step": ("4.3", "        optimizer.step()\n", "        optimizer.step()\n        break\n", "The number of steps taken is 1, where num_steps is 5"),
    "LP a few": ("4.3", LOSS, "F.cross_entropy(probe(codes[:50]), labels[:50])", "The gradient of the loss, which should be the mean cross-entropy of all codes"),
    "LP another layer": ("4.3", "return probe", "return nn.Linear(codes.shape[1], num_classes)", "where the layer that was trained is expected"),
    "WC kept": ("4.4", "labels != digit", "labels >= 0", "should not know"),
    "WC typed in": ("4.4", "labels != digit", "labels != 9", "The images of 9 are taken out, where those of digit, here 3"),
    "WC one value": ("4.4", "return images[keep], labels[keep]", "return images[keep]", "returns one value, where 2 are expected"),
    "WC keep": ("4.4", "return images[keep], labels[keep]", "return images[keep], keep", "returns keep where labels is expected"),
    "AU ties": ("4.4", AREA, "above.float().mean().item()", "the share of equal pairs is missing"),
    "AU ties whole": ("4.4", AREA, "(above.float().mean() + equal.float().mean()).item()", "the share of equal pairs has the factor 1, where 0.5"),
    "AU no mean": ("4.4", AREA, "above.float() + 0.5 * equal.float()", "has shape (13, 40), where () is expected"),
    "EX turned": ("4.5", "return surprise - expected", "return expected - surprise", "behaves as if surprise and expected had changed places"),
    "EX scored images": ("4.5", "    centred =", "    train_surprise, train_outline = surprise, outline\n    centred =", "fitted to the images to be scored"),
    "EX squared sum": ("4.5", SLOPE, SLOPE.replace("centred.pow(2).sum()", "train_outline.sum().pow(2)"), "Of the line that is subtracted from the surprise, the slope is 0.0"),
    "EX origin": ("4.5", LINE, "slope * outline", "The mean surprise is missing from the line. And: The mean outline is not subtracted"),
}  # fmt: skip

# right answers with a remark: (exercise, text, what a student wrote, what the remark must hold)
REMARKS = {
    "GL float": ("4.1", ADDED, f"{ADDED}.float()", "this works with float32 only"),
    "GL clamped far out": ("4.1", DENSITY, DENSITY.replace("log_sigma.exp()", "log_sigma.clamp(min=-8).exp()"), "A clamp has no gradient"),
    "EB numpy": ("4.1", DRAWN, "model.decoder(mu + torch.tensor(__import__('numpy').random.randn(*mu.shape)).float() * (0.5 * logvar).exp())", "torch.manual_seed does not fix these draws"),
    "EB no gradient": ("4.1", BOUND, f"({BOUND}).detach()", "no gradient passes"),
    "AV device": ("4.1", "x.to(device)", "x", "bring every batch to device"),
    "LW on the CPU": ("4.2", Z, "z = mu + torch.randn(mu.shape) * (0.5 * logvar).exp()", "works on the CPU only"),
    "IW on the CPU": ("4.2", LOGSUMEXP, "torch.logsumexp(log_w - torch.full((len(log_w), 1), math.log(len(log_w))), dim=0)", "works on the CPU only"),
    "NM numpy": ("4.3", CDIST, "torch.from_numpy(((codes[:, None] - means) ** 2).sum(2).numpy())", "works on the CPU only"),
    "LP on the CPU": ("4.3", LOSS, "F.cross_entropy(probe(codes), labels, torch.ones(num_classes))", "works on the CPU only"),
}  # fmt: skip

# mistakes that cannot be made here, and why
IMPOSSIBLE = {}

HARMLESS = {
    "Normal": ("4.1", DENSITY, "Normal(recon, log_sigma.exp()).log_prob(x)"),
    "Normal of x": ("4.1", DENSITY, "torch.distributions.Normal(x, torch.exp(log_sigma)).log_prob(recon)"),
    "variance divides": ("4.1", DENSITY, "-0.5 * math.log(2 * math.pi) - log_sigma - (recon - x) ** 2 / (2 * torch.exp(2 * log_sigma))"),
    "log of the root": ("4.1", DENSITY, "-torch.log(torch.exp(log_sigma) * math.sqrt(2 * math.pi)) - 0.5 * torch.square((x - recon) * torch.exp(-log_sigma))"),
    "log with pi": ("4.1", DENSITY, "-0.5 * torch.log(torch.tensor(2 * torch.pi)) - log_sigma - 0.5 * ((x - recon) / log_sigma.exp()) ** 2"),
    "gaussian_nll_loss": ("4.1", DENSITY, "-F.gaussian_nll_loss(recon, x, (2 * log_sigma).exp().expand_as(x), full=True, eps=1e-12, reduction='none')"),
    "sum over three": ("4.1", ADDED, "log_density.sum(dim=(1, 2, 3))"),
    "view and sum": ("4.1", ADDED, "log_density.reshape(len(x), -1).sum(-1)"),
    "einsum": ("4.1", ADDED, 'torch.einsum("bchw->b", log_density)'),
    "sampled z": ("4.1", DRAWN, "model.decoder(Normal(mu, (0.5 * logvar).exp()).rsample())"),
    "z by hand": ("4.1", DRAWN, "model.decoder(mu + torch.randn_like(mu) * torch.exp(logvar / 2))"),
    "kl of distributions": ("4.1", "kl_divergence(mu, logvar).sum(dim=1)", "torch.distributions.kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(-1)"),
    "inference mode for the mean": ("4.1", "torch.no_grad()", "torch.inference_mode()"),
    "weighted means": ("4.1", TOTAL, "total = sum(len(x) * elbo(model, x.to(device)).mean() for x in images.split(batch_size))"),
    "all numbers, then the mean": ("4.1", f"{TOTAL}\n    {MEAN}", "mean = torch.cat([elbo(model, x.to(device)) for x in images.split(batch_size)]).mean().item()"),
    "a running sum": ("4.1", TOTAL, "total = torch.zeros((), device=device)\n        for start in range(0, len(images), batch_size):\n            total += elbo(model, images[start : start + batch_size].to(device)).sum()"),
    "a tensor": ("4.1", MEAN, "mean = total / len(images)"),
    "fetched back": ("4.1", f"{TOTAL}\n    {MEAN}", "mean = torch.cat([elbo(model, x.to(device)).cpu() for x in images.split(batch_size)]).mean().item()"),
    "the parts in eval mode": ("4.1", IN_EVAL, "with eval_mode(model.encoder), eval_mode(model.decoder), torch.no_grad():"),
    "forward by name": ("4.1", DRAWN, "model.decoder.forward(reparameterize(mu, logvar))"),
    "mode by hand": ("4.1", IN_BLOCK, f"    training = model.training\n    model.train(False)\n    with torch.no_grad():\n        {TOTAL}\n    model.train(training)\n"),
    "sample": ("4.2", Z, "z = posterior.sample()"),
    "z by hand for w": ("4.2", Z, "z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)"),
    "two sums": ("4.2", RATIO, "prior.log_prob(z).sum(1) - posterior.log_prob(z).sum(-1)"),
    "prior by hand": ("4.2", RATIO, "(-0.5 * z**2 + 0.5 * ((z - mu) / posterior.scale) ** 2 + 0.5 * logvar).sum(dim=1)"),
    "prior like the posterior": ("4.2", RATIO, "(Normal(torch.zeros_like(mu), torch.ones_like(mu)).log_prob(z) - posterior.log_prob(z)).sum(dim=1)"),
    "all draws at once": ("4.2", WEIGHTS, AT_ONCE),
    "dim -2": ("4.2", LOGSUMEXP, "log_w.logsumexp(-2) - torch.log(torch.tensor(float(log_w.shape[0])))"),
    "mean inside": ("4.2", LOGSUMEXP, "(log_w - log_w.max(dim=0).values).exp().mean(dim=0).log() + log_w.max(dim=0).values"),
    "minus first": ("4.2", LOGSUMEXP, "torch.logsumexp(log_w - math.log(len(log_w)), dim=0)"),
    "double": ("4.2", LOGSUMEXP, "(torch.logsumexp(log_w.double(), dim=0) - math.log(len(log_w))).to(log_w)"),
    "reshaped": ("4.2", f"{GROUPS}\n", "groups = log_w.reshape(-1, group_size, log_w.shape[1])\n"),
    "every other": ("4.2", GROUPS, "groups = [log_w[start :: len(log_w) // group_size] for start in range(len(log_w) // group_size)]"),
    "chunked": ("4.2", GROUPS, "groups = log_w.chunk(len(log_w) // group_size)"),
    "at one stroke": ("4.2", AVERAGE, "(log_w.view(-1, group_size, log_w.shape[1]).logsumexp(1) - math.log(group_size)).mean(0)"),
    "a sum of bounds": ("4.2", AVERAGE, "sum(iwae_bound(group) for group in groups) / len(groups)"),
    "norm": ("4.3", CDIST, "(codes[:, None] - means).norm(dim=2)"),
    "squares": ("4.3", CDIST, "(codes[:, None] - means[None]).pow(2).sum(dim=-1)"),
    "expanded square": ("4.3", CDIST, "means.pow(2).sum(1) - 2 * codes @ means.T"),
    "min": ("4.3", "distances.argmin(dim=1)", "distances.min(dim=1).indices"),
    "argmax of minus": ("4.3", "distances.argmin(dim=1)", "(-distances).argmax(1)"),
    "means by hand": ("4.3", "class_means(train_codes, train_labels)", "torch.stack([train_codes[train_labels.to(train_codes.device) == digit].mean(dim=0) for digit in range(10)])"),
    "data": ("4.3", "codes.detach()", "codes.data"),
    "a copy of the codes": ("4.3", "codes.detach()", "codes.clone().detach()"),
    "nll": ("4.3", LOSS, "F.nll_loss(F.log_softmax(probe(codes), dim=1), labels)"),
    "one-hot labels": ("4.3", LOSS, "F.cross_entropy(probe(codes), F.one_hot(labels, num_classes).float())"),
    "loss module": ("4.3", LOSS, "nn.CrossEntropyLoss()(probe(codes), labels)"),
    "log of a softmax, which changes nothing": ("4.3", LOSS, "F.cross_entropy(probe(codes).log_softmax(dim=1), labels)"),
    "cleared at the end": ("4.3", "        optimizer.zero_grad()\n        loss.backward()\n        optimizer.step()\n", "        loss.backward()\n        optimizer.step()\n        optimizer.zero_grad()\n"),
    "clear the probe": ("4.3", "optimizer.zero_grad()", "probe.zero_grad()"),
    "another optimizer": ("4.3", "torch.optim.Adam(probe.parameters(), lr=lr)", "torch.optim.AdamW(probe.parameters(), lr=0.05, weight_decay=0)"),
    "not": ("4.4", "labels != digit", "~(labels == digit)"),
    "ne": ("4.4", "labels != digit", "labels.ne(digit)"),
    "indices": ("4.4", "keep = labels != digit", "keep = torch.nonzero(labels != digit).flatten()"),
    "labels moved": ("4.4", "return images[keep], labels[keep]", "return images[keep.to(images.device)], labels[keep]"),
    "the other way round": ("4.4", "above = anomalous[:, None] > normal[None, :]\n    equal = anomalous[:, None] == normal[None, :]", "above = normal < anomalous.unsqueeze(1)\n    equal = normal == anomalous.unsqueeze(1)"),
    "a tensor for a number": ("4.4", ".item()", ""),
    "counts": ("4.4", AREA, "(above.sum().item() + equal.sum().item() / 2) / (len(normal) * len(anomalous))"),
    "signs": ("4.4", AREA, "((anomalous[:, None] - normal[None, :]).sign().double().mean().item() + 1) / 2"),
    "both kinds": ("4.4", AREA, "0.5 * (above.double() + (above | equal).double()).mean().item()"),
    "doubles": ("4.4", AREA, AREA.replace(".float()", ".double()")),
    "means": ("4.5", SLOPE, "(centred * (train_surprise - train_surprise.mean())).mean() / centred.pow(2).mean()"),
    "centred once": ("4.5", SLOPE, "(centred * train_surprise).sum() / (centred * centred).sum()"),
    "cov": ("4.5", SLOPE, "torch.cov(torch.stack([train_outline, train_surprise]))[0, 1] / train_outline.var()"),
    "matrix product": ("4.5", SLOPE, "(centred @ train_surprise) / (centred @ centred)"),
    "lstsq": ("4.5", SLOPE, "torch.linalg.lstsq(centred[:, None], train_surprise[:, None]).solution.squeeze()"),
    "start of the line": ("4.5", LINE, "(train_surprise.mean() - slope * train_outline.mean()) + slope * outline"),
    "sub": ("4.5", "surprise - expected", "surprise.sub(expected)"),
}  # fmt: skip
