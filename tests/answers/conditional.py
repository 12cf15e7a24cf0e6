"""What students write in notebook 05, and what the checks must say of it.

The mistakes that are rows of the tables in vae_tutorial/checks/conditional.py are tested there, as rows; here are those
that its readers name. The name of a mistake tells the exercise's part: JL the label planes, CD the model's decode, CF
its forward, CB its sizes, HG the grid of handwritings, PF the fit of the probe, PA its accuracy.
"""

ONE_HOT = "F.one_hot(labels, num_classes).to(x)"
PLANES = "one_hot[:, :, None, None].expand(-1, -1, 32, 32)"
JOINED = "torch.cat([x, planes], dim=1)"
PAIR = "torch.cat([z, one_hot], dim=1)"
ENCODE = "mu, logvar = self.encoder(x)"
DRAWN = "z = reparameterize(mu, logvar) if self.training else mu"
ENCODER = "Encoder(1 + num_classes, width, latent_dim)"
DECODER = "Decoder(1, width, latent_dim + num_classes)"
CODES = "z.repeat_interleave(num_classes, dim=0)"
LABELS = "torch.arange(num_classes).repeat(len(z))"
IN_EVAL = "with eval_mode(model), torch.no_grad():"
DECODED = "model.decode(codes, one_hot)"
BLOCK = f"    {IN_EVAL}\n        images = {DECODED}\n"
LOSS = "F.cross_entropy(probe(codes), labels)"
PREDICTED = "scores.argmax(dim=1)"
SHARE = "(predicted == labels).float().mean().item()"

# name: (exercise, text of the finished version, what a student wrote, what the sentence must hold)
MISTAKES = {
    "JL added": ("5.1", JOINED, "torch.cat([x + planes[:, :1], planes], dim=1)", "The image, in channel 0, is"),
    "JL stacked": ("5.1", JOINED, "torch.stack([x.expand_as(planes), planes], dim=1)", "has shape (5, 2, 10, 32, 32)"),
    "JL reversed": ("5.1", ONE_HOT, "F.one_hot(labels, num_classes).flip(0).to(x)", "the planes is right, but with the images in reverse order"),
    "JL in place": ("5.1", JOINED, "torch.cat([x.mul_(0.5), planes], dim=1)", "changes x in place"),
    "CD scaled": ("5.1", PAIR, "torch.cat([0.1 * z, one_hot], dim=1)", "z, as the decoder gets it, is 0.1 times what is expected"),
    "CD softmax": ("5.1", PAIR, "torch.cat([z, one_hot.softmax(1)], dim=1)", "The label, as the decoder gets it, is"),
    "CD twice": ("5.1", PAIR, "torch.cat([z, z, one_hot], dim=1)", "with the 3 numbers of z and the 10 of the label"),
    "CD detached": ("5.1", PAIR, "torch.cat([z.detach(), one_hot], dim=1)", "No gradient goes from the images that decode returns back"),
    "CD not decoded": ("5.1", f"self.decoder({PAIR})", PAIR, "The decoder is never called"),
    "CD 2 x": ("5.1", f"self.decoder({PAIR})", f"2 * self.decoder({PAIR})", "decode does not return what the decoder makes of"),
    "CF typed in": ("5.1", ENCODE, "mu, logvar = self.encoder(x[:, :11])", "What the encoder gets has shape (64, 11, 32, 32)"),
    "CF another label": ("5.1", "one_hot = x[:, 1:, 0, 0]", "one_hot = x[:, 1:, 0, 0].flip(0)", "In forward the decoder does not get each z beside"),
    "CF no noise": ("5.1", DRAWN, "z = mu", "In train mode mu is decoded"),
    "CF seeded": ("5.1", DRAWN, f"_ = torch.manual_seed(0); {DRAWN}", "seeds the random numbers"),
    "CF detached": ("5.1", ENCODE, f"{ENCODE}; mu = mu.detach()", "No gradient goes from recon back to the encoder in"),
    "CF cut at z": ("5.1", DRAWN, "z = reparameterize(mu, logvar).detach() if self.training else mu", "No gradient goes from recon back to the encoder in"),
    "CF twice": ("5.1", ENCODE, "mu, logvar = self.encoder(x)[0], self.encoder(x)[1]", "calls the encoder twice and the decoder once"),
    "CF one value": ("5.1", "return self.decode(z, one_hot), mu, logvar", "return self.decode(z, one_hot)", "forward returns one value, where 3 are expected"),
    "CB order": ("5.1", ENCODER, "Encoder(1 + num_classes, latent_dim, width)", "width and latent_dim in each other's place"),
    "CB plain VAE": ("5.1", "return ConditionalVAE(encoder", "return VAE(encoder", "The model is a VAE, where a ConditionalVAE is expected"),
    "HG turned": ("5.2", LABELS, f"{LABELS.replace('repeat', 'repeat_interleave')}; codes = z.repeat(num_classes, 1)", "The batch goes through all codes with label 0"),
    "HG label 0": ("5.2", LABELS, "torch.zeros(num_classes * len(z), dtype=torch.long)", "In row 1 of the batch stands code 0 with label 0, where code 0 with label 1"),
    "HG new codes": ("5.2", CODES, "torch.randn_like(z.repeat_interleave(num_classes, dim=0))", "stands a code that is not in z"),
    "HG five": ("5.2", DECODED, "model.decode(codes[:5], one_hot[:5])", "5 images are decoded, where 40 are expected: 4 codes, 10 labels each"),
    "HG three times": ("5.2", LABELS, "torch.arange(num_classes).repeat(3)", "codes of shape (40, 3) and labels of shape (30, 10)"),
    "HG cut codes": ("5.2", DECODED, "model.decoder(codes[:, :2])", "The decoder gets a tensor of shape (40, 2), where rows of 13 numbers"),
    "HG nothing": ("5.2", DECODED, "torch.zeros(len(codes), 1, 32, 32)", "The decoder is never called"),
    "HG one row": ("5.2", DECODED, f"{DECODED}[:num_classes]", "has shape (10, 1, 32, 32)"),
    "HG train mode": ("5.2", IN_EVAL, "with torch.no_grad():", "BatchNorm mixes the images"),
    "HG gradient": ("5.2", IN_EVAL, "with eval_mode(model):", "carry a gradient"),
    "HG grad off for good": ("5.2", IN_EVAL, f"torch.set_grad_enabled(False)\n    {IN_EVAL}", "Gradients stay switched off"),
    "HG frozen": ("5.2", IN_EVAL, f"model.requires_grad_(False)\n    {IN_EVAL}", "frozen for good"),
    "HG mode left": ("5.2", IN_EVAL, "model.eval()\n    with torch.no_grad():", "left in another mode"),
    "HG halved": ("5.2", IN_EVAL, f"model.encoder.conv1.weight.data.mul_(0.5)\n    {IN_EVAL}", "weights or averages are changed"),
    "HG in place": ("5.2", CODES, "z.data.mul_(2).repeat_interleave(num_classes, dim=0)", "changes z in place"),
    "PF first codes": ("5.3", LOSS, "F.cross_entropy(probe(codes[:64]), labels[:64])", "In the first step 64 of the 1100 codes count"),
    "PF doubled": ("5.3", LOSS, f"2 * {LOSS}", "in the first step its gradient is 2 times what is expected"),
    "PF smoothed": ("5.3", LOSS, "F.cross_entropy(probe(codes), labels, label_smoothing=0.3)", "is not the mean cross-entropy"),
    "PF number": ("5.3", LOSS, f"{LOSS}.item()", "needs the loss as a tensor"),
    "PF not returned": ("5.3", "    return probe\n", "", "fit_probe returns None"),
    "PF backward twice": ("5.3", LOSS, f"{LOSS}; loss.backward(retain_graph=True)", "With steps=1 the probe's weights get 2 gradients"),
    "PF rate": ("5.3", "lr=0.02", "lr=0.1", "The change of the probe's weights is 5 times what is expected"),
    "PA every code": ("5.3", SHARE, "(predicted == labels).float()", "right codes of 230 is a tensor of shape (230,)"),
    "PA rounded": ("5.3", PREDICTED, "scores[:, 0].round()", "right codes of 230 is"),
    "PA std": ("5.3", SHARE, "(predicted == labels).float().std().item()", "as if std stood in the place of mean"),
    "PA name": ("5.3", SHARE, "(predicted == labels).sum().item() / num_classes", "name 'num_classes' is not defined"),
}  # fmt: skip

# right answers with a remark: (exercise, text, what a student wrote, what the remark must hold)
REMARKS = {
    "JL device": ("5.1", ONE_HOT, "F.one_hot(labels, num_classes).float()", "on the CPU only"),
    "JL scatter": ("5.1", ONE_HOT, "torch.zeros(len(x), num_classes).to(x).scatter_(1, labels[:, None], 1)", "on the CPU only"),
    "JL float32": ("5.1", JOINED, "torch.cat([x.float(), planes.float()], dim=1)", "with float32 only"),
    "CD device": ("5.1", PAIR, "torch.cat([z, one_hot + torch.zeros(len(z), 1)], dim=1)", "on the CPU only"),
    "CF device": ("5.1", ENCODE, "mu, logvar = self.encoder(x + torch.zeros(1, 1, 32, 32))", "on the CPU only"),
    "HG device": ("5.2", CODES, f"{CODES} + torch.zeros(num_classes * len(z), 1)", "on the CPU only"),
    "HG numpy": ("5.2", CODES, "torch.from_numpy(z.numpy().repeat(num_classes, 0))", "on the CPU only"),
    "PF device": ("5.3", LOSS, "F.cross_entropy(probe(codes) + torch.zeros(len(codes), 1), labels)", "on the CPU only"),
    "PA numpy": ("5.3", PREDICTED, "torch.from_numpy(scores.numpy().argmax(1))", "on the CPU only"),
}  # fmt: skip

IMPOSSIBLE = {}

HARMLESS = {
    "as float": ("5.1", ONE_HOT, "F.one_hot(labels, num_classes=num_classes).to(x.dtype).to(x.device)"),
    "type_as": ("5.1", ONE_HOT, "F.one_hot(labels, num_classes).type_as(x)"),
    "identity": ("5.1", ONE_HOT, "torch.eye(num_classes)[labels].to(x)"),
    "compared": ("5.1", ONE_HOT, "(labels[:, None] == torch.arange(num_classes)).to(x)"),
    "scatter": ("5.1", ONE_HOT, "torch.zeros(len(x), num_classes).scatter_(1, labels[:, None], 1).to(x)"),
    "planes repeated": ("5.1", PLANES, "one_hot[:, :, None, None].repeat(1, 1, 32, 32)"),
    "planes by view": ("5.1", PLANES, "one_hot.view(len(x), num_classes, 1, 1).expand(-1, -1, *x.shape[2:])"),
    "times ones": ("5.1", PLANES, "one_hot.unsqueeze(2).unsqueeze(3) * torch.ones_like(x)"),
    "filled": ("5.1", PLANES, "x.new_zeros(len(x), num_classes, 32, 32); planes[torch.arange(len(x)), labels] = 1"),
    "hstack": ("5.1", JOINED, "torch.hstack([x, planes])"),
    "concat": ("5.1", JOINED, "torch.concat((x, planes), 1)"),
    "label first": ("5.1", PAIR, "torch.cat([one_hot, z], dim=1)"),
    "hstack too": ("5.1", PAIR, "torch.hstack((z, one_hot))"),
    "stretched by view": ("5.2", CODES, "z.repeat(1, num_classes).view(-1, z.shape[1])"),
    "decoder in eval mode": ("5.2", "eval_mode(model)", "eval_mode(model.decoder)"),
    "last dimension": ("5.1", PAIR, "torch.cat((z, one_hot), -1)"),
    "not by decode": ("5.1", "return self.decode(z, one_hot), mu", "return self.decoder(torch.cat([z, one_hot], 1)), mu"),
    "unpacked later": ("5.1", ENCODE, "both = self.encoder(x); mu, logvar = both"),
    "all channels": ("5.1", ENCODE, "mu, logvar = self.encoder(x[:, :])"),
    "sizes by name": ("5.1", ENCODER, "Encoder(in_channels=num_classes + 1, width=width, latent_dim=latent_dim)"),
    "decoder by name": ("5.1", DECODER, "Decoder(out_channels=1, latent_dim=num_classes + latent_dim, width=width)"),
    "repeated by hand": ("5.2", CODES, "z[:, None].expand(-1, num_classes, -1).reshape(-1, z.shape[1])"),
    "indexed": ("5.2", CODES, "z[torch.arange(len(z)).repeat_interleave(num_classes)]"),
    "stacked": ("5.2", CODES, "torch.stack([code for code in z for _ in range(num_classes)])"),
    "expanded": ("5.2", LABELS, "torch.arange(num_classes).expand(len(z), -1).flatten()"),
    "remainder": ("5.2", LABELS, "torch.arange(num_classes * len(z)) % num_classes"),
    "labels in a list": ("5.2", LABELS, "torch.tensor(list(range(num_classes)) * len(z))"),
    "on the device of z": ("5.2", LABELS, "torch.arange(num_classes, device=z.device).repeat(len(z))"),
    "grid in inference mode": ("5.2", "torch.no_grad()", "torch.inference_mode()"),
    "the decoder's turn": ("5.2", "model.decode(codes, one_hot)", "model.decoder(torch.cat([codes, one_hot], dim=1))"),
    "grid with the mode by hand": ("5.2", BLOCK, "    training = model.training\n    model.train(False)\n    with torch.no_grad():\n        images = model.decode(codes, one_hot)\n    model.train(training)\n"),
    "images detached": ("5.2", "images = model.decode(codes, one_hot)\n", "images = model.decode(codes, one_hot).detach()\n"),
    "row by row": ("5.2", "images = model.decode(codes, one_hot)", "images = torch.cat([model.decode(c[None], o[None]) for c, o in zip(codes, one_hot)])"),
    "cross-entropy module": ("5.3", LOSS, "nn.CrossEntropyLoss()(probe(codes), labels)"),
    "nll of log_softmax": ("5.3", LOSS, "F.nll_loss(probe(codes).log_softmax(1), labels)"),
    "log_softmax first": ("5.3", LOSS, "F.cross_entropy(F.log_softmax(probe(codes), dim=1), labels)"),
    "one-hot targets": ("5.3", LOSS, "F.cross_entropy(probe(codes), F.one_hot(labels, probe(codes).shape[1]).float())"),
    "log of the softmax": ("5.3", LOSS, "F.nll_loss(probe(codes).softmax(1).log(), labels)"),
    "cross-entropy by hand": ("5.3", LOSS, "(probe(codes).logsumexp(1) - probe(codes)[torch.arange(len(codes)), labels]).mean()"),
    "last one": ("5.3", PREDICTED, "scores.argmax(-1)"),
    "place of the max": ("5.3", PREDICTED, "scores.max(dim=1).indices"),
    "of the softmax": ("5.3", PREDICTED, "torch.argmax(scores.softmax(1), dim=1)"),
    "counted": ("5.3", SHARE, "(predicted == labels).sum().item() / len(labels)"),
    "share as a tensor": ("5.3", SHARE, "(predicted == labels).double().mean()"),
    "eq": ("5.3", SHARE, "float(predicted.eq(labels).float().mean())"),
    "counted by hand": ("5.3", SHARE, "sum(int(p == y) for p, y in zip(predicted, labels)) / len(codes)"),
}  # fmt: skip
