"""The checks of notebook 01, held against known mistakes, each of which must be named, and against harmless variants.

A mistake is a replacement in the text of the finished version. Its name tells the exercise's part: KL and RC the two
terms of the loss, LS their sum, EN and EF the encoder, SP the reparameterization, DE the decoder, VF the VAE, TR the
training step, PR the prior, CM the class means, IP the interpolation.
"""

import inspect
import linecache
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal

from vae_tutorial import checks, latent, loss, model
from vae_tutorial.checks import vae as checks_of_01

KL = "-0.5 * (1 + logvar - mu.pow(2) - logvar.exp())"
STD = "torch.exp(0.5 * logvar)"
DRAW = "torch.randn_like(std)"
CONV1 = "nn.Conv2d(in_channels, width, kernel_size=4, stride=2, padding=1)"
HEAD = "nn.Conv2d(4 * width, latent_dim, kernel_size=4)"
CODE = "z = reparameterize(mu, logvar) if self.training else mu"
CALL = "loss, recon_loss, kl_loss = loss_fn(recon, x, mu, logvar)"
PRIOR = "torch.randn(num_samples, latent_dim, device=weight.device, dtype=weight.dtype)"
ONE_HOT = "F.one_hot(labels.long(), num_classes).to(codes)"
MEAN = "one_hot.T @ codes / counts[:, None]"
T = "torch.linspace(0, 1, num_steps, device=start.device, dtype=start.dtype)[:, None]"
LINE = "(1 - t) * start + t * end"

# name: (exercise, text of the finished version, what a student wrote, what the hint must hold)
MISTAKES = {
    "KL01 sign": ("1.1", KL, KL[1:], "never negative"),
    "KL03 no 1": ("1.1", KL, "-0.5 * (logvar - mu.pow(2) - logvar.exp())", "which constant is missing"),
    "KL05 mu": ("1.1", KL, "-0.5 * (1 + logvar - mu - logvar.exp())", "mu enters as mu"),
    "KL05 abs": ("1.1", KL, "-0.5 * (1 + logvar - mu.abs() - logvar.exp())", "mu enters as |mu|"),
    "KL07 -logvar": ("1.1", KL, "-0.5 * (1 - logvar - mu.pow(2) - logvar.exp())", "small variance"),
    "KL09 log sigma": ("1.1", KL, "-0.5 * (1 + 2 * logvar - mu.pow(2) - (2 * logvar).exp())", "log sigma"),
    "KL11 squared twice": ("1.1", KL, "-0.5 * (1 + logvar - mu.pow(2) - logvar.exp().pow(2))", "must not be squared"),
    "KL13 log": ("1.1", KL, "-0.5 * (1 + torch.log(logvar) - mu.pow(2) - logvar)", "a log already"),
    "KL15 sum": ("1.1", "kl_divergence(mu, logvar).mean()", "kl_divergence(mu, logvar).sum()", "grows with the batch"),
    "KL15 sum D": ("1.1", "logvar).mean()", "logvar).sum(1).mean()", "D = 7 times too large"),
    "KL17 mean(0)": ("1.1", "kl_divergence(mu, logvar).mean()", "kl_divergence(mu, logvar).mean(0)", "one number"),
    "KL17 mean(1)": ("1.1", "kl_divergence(mu, logvar).mean()", "kl_divergence(mu, logvar).mean(dim=1)", "one number"),
    "KL19 bracket": ("1.1", KL, "-0.5 * 1 + logvar - mu.pow(2) - logvar.exp()", "compare it with the formula"),
    "KL21 kl_div": ("1.1", KL, 'F.kl_div(mu, logvar, reduction="none")', "kl_divergence"),
    "KL23 math": ("1.1", KL, "-0.5 * (1 + logvar - mu.pow(2) - math.exp(logvar))", "single numbers"),
    "KL27 variance": ("1.1", KL, "torch.distributions.kl_divergence(Normal(mu, logvar.exp()), Normal(0, 1))", "log of the variance"),
    "KL half": ("1.1", KL, "-(1 + logvar - mu.pow(2) - logvar.exp())", "2 times the right value"),
    "KL std": ("1.1", KL, "-0.5 * (1 + logvar - mu.pow(2) - (0.5 * logvar).exp())", "where the formula has sigma^2"),
    "KL averaged": ("1.1", KL, f"({KL}).mean()", "averaged already"),
    "KL detached": ("1.1", KL, f"({KL}).detach()", "carries no gradient"),
    "KL mu detached": ("1.1", KL, "-0.5 * (1 + logvar - mu.detach().pow(2) - logvar.exp())", "no gradient reaches mu"),
    "RC02 L1": ("1.1", "F.mse_loss(recon, x)", "F.l1_loss(recon, x)", "absolute"),
    "RC04 BCE": ("1.1", "F.mse_loss(recon, x)", "F.binary_cross_entropy_with_logits(recon, x)", "cross-entropy"),
    "RC06 x with x": ("1.1", "F.mse_loss(recon, x)", "F.mse_loss(x, x)", "compared with itself"),
    "RC06 recon": ("1.1", "F.mse_loss(recon, x)", "F.mse_loss(recon, recon)", "compared with itself"),
    "RC08 guard": ("1.1", "    require_same_shape(recon=recon, x=x)\n", "", "all pairs"),
    "RC10 none": ("1.1", "F.mse_loss(recon, x)", 'F.mse_loss(recon, x, reduction="none")', "one number"),
    "RC10 mean(0)": ("1.1", "F.mse_loss(recon, x)", "((recon - x) ** 2).mean(0)", "one number"),
    "RC12 root": ("1.1", "F.mse_loss(recon, x)", "F.mse_loss(recon, x).sqrt()", "square root"),
    "RC sum": ("1.1", "F.mse_loss(recon, x)", 'F.mse_loss(recon, x, reduction="sum")', "summed over something"),
    "LS02 minus": ("1.1", "mse + beta * kl", "mse - beta * kl", "added to the loss"),
    "LS04 no KL": ("1.1", "mse + beta * kl", "mse", "plain autoencoder"),
    "LS06 product": ("1.1", "mse + beta * kl", "mse * beta * kl", "a product is 0"),
    "LS08 one value": ("1.1", "return loss, mse, kl", "return loss", "the three of"),
    "LS10 torch.tensor": ("1.1", "mse + beta * kl", "torch.tensor(mse + beta * kl)", "carries no gradient"),
    "LS no beta": ("1.1", "mse + beta * kl", "mse + kl", "beta is never used"),
    "KL clamped": ("1.1", KL, "-0.5 * (1 + logvar.clamp(-5, 5) - mu.pow(2) - logvar.clamp(-5, 5).exp())", "nothing is clamped"),
    "KL in place": ("1.1", KL, "-0.5 * (1 + logvar - mu.data.pow_(2) - logvar.exp())", "mu is changed in place"),
    "RC first channel": ("1.1", "F.mse_loss(recon, x)", "F.mse_loss(recon[:, 0], x[:, 0])", "something else is computed"),
    "LS in place": ("1.1", "loss = mse + beta * kl", "loss = mse; loss += beta * kl", "changed in place"),
    "LS typed in": ("1.1", "mse + beta * kl", "mse + 0.1 * kl", "0.1 is typed in"),
    "EN01 no padding": ("1.2", CONV1, CONV1.replace(", padding=1", ""), "padding 0"),
    "EN03 3x3": ("1.2", CONV1, CONV1.replace("kernel_size=4", "kernel_size=3"), "kernel_size 3"),
    "EN05 padded head": ("1.2", HEAD, HEAD.replace("=4)", "=4, padding=1)"), "padding 1"),
    "EN07 one head": ("1.2", f"self.conv_logvar = {HEAD}", "self.conv_logvar = self.conv_mu", "same layer"),
    "EN09 1d": ("1.2", "nn.BatchNorm2d(width)", "nn.BatchNorm1d(width)", "BatchNorm1d"),
    "EN11 super": ("1.2", "        super().__init__()\n", "", "first line"),
    "EN13 list": ("1.2", f"self.conv_mu = {HEAD}", f"self.layers = [{HEAD}]", "not to a list"),
    "EN15 2 D": ("1.2", f"conv_logvar = {HEAD}", f"conv_logvar = {HEAD}".replace("latent_dim", "2 * latent_dim"), "14"),
    "EN17 numbers": ("1.2", CONV1, CONV1.replace("width", "16"), "whatever the sizes"),
    "EN eps": ("1.2", "nn.BatchNorm2d(width)", "nn.BatchNorm2d(width, width)", "eps 5"),
    "EN tied": ("1.2", f"self.conv_logvar = {HEAD}", f"self.conv_logvar = {HEAD}; self.conv_logvar.weight = self.conv_mu.weight", "share their weights"),
    "EN comma": ("1.2", CONV1, f"{CONV1},", "is a tuple"),
    "EN transposed": ("1.2", CONV1, CONV1.replace("Conv2d", "ConvTranspose2d"), "ConvTranspose2d"),
    "EF02 relu": ("1.3", "self.conv_logvar(x).flatten(1)", "F.relu(self.conv_logvar(x)).flatten(1)", "through relu"),
    "EF04 sigmoid": ("1.3", "self.conv_logvar(x)", "torch.sigmoid(self.conv_logvar(x))", "through sigmoid"),
    "EF04 softplus": ("1.3", "self.conv_logvar(x)", "F.softplus(self.conv_logvar(x))", "through softplus"),
    "EF06 swapped": ("1.3", "return mu, logvar", "return logvar, mu", "mixes up mu and logvar"),
    "EF10 no relu": ("1.3", "F.relu(self.bn2(self.conv2(x)))", "self.bn2(self.conv2(x))", "self.bn2 and self.conv3"),
    "EF10 last relu": ("1.3", "F.relu(self.bn3(self.conv3(x)))", "self.bn3(self.conv3(x))", "no activation"),
    "EF12 overwritten": ("1.3", "mu = self.conv_mu(x).flatten(1)", "mu = x = self.conv_mu(x)", "overwritten"),
    "EF14 squeeze": ("1.3", "self.conv_mu(x).flatten(1)", "self.conv_mu(x).squeeze()", "batch of one"),
    "EF14 no flatten": ("1.3", "self.conv_mu(x).flatten(1)", "self.conv_mu(x)", "flatten(1)"),
    "EF16 one value": ("1.3", "return mu, logvar", "return mu", "the two of mu, logvar"),
    "EF18 copied": ("1.3", "self.conv_logvar(x)", "self.conv_mu(x)", "conv_logvar is never used"),
    "EF20 one bn": ("1.3", "self.bn2(self.conv2(x))", "self.bn1(self.conv2(x))", "self.bn1 is used 2 times"),
    "EF detached": ("1.3", "self.conv_mu(x).flatten(1)", "self.conv_mu(x.detach()).flatten(1)", "gradient"),
    "EF relu6": ("1.3", "F.relu(self.bn2(self.conv2(x)))", "F.relu6(self.bn2(self.conv2(x)))", "relu6"),
    "EF double": ("1.3", "self.conv_mu(x).flatten(1)", "self.conv_mu(x).flatten(1).double()", "torch.float64"),
    "EF relu first": ("1.3", "F.relu(self.bn1(self.conv1(x)))", "self.bn1(F.relu(self.conv1(x)))", "self.bn1"),
    "EF no bn": ("1.3", "F.relu(self.bn1(self.conv1(x)))", "F.relu(self.conv1(x))", "self.bn1 is never used"),
    "SP01 variance": ("1.4", STD, "torch.exp(logvar)", "scaled by the variance"),
    "SP03 root": ("1.4", STD, "logvar.sqrt()", "nan"),
    "SP05 rand": ("1.4", DRAW, "torch.rand_like(std)", "rand is uniform"),
    "SP07 swapped": ("1.4", "mu + eps * std", "std + eps * mu", "changed places"),
    "SP07 swapped too": ("1.4", "mu + eps * std", "mu * eps + std", "changed places"),
    "SP09 one eps": ("1.4", DRAW, "torch.randn(len(std), 1)", "move together"),
    "SP09 one row": ("1.4", DRAW, "torch.randn(1, std.shape[1])", "Every image gets the same noise"),
    "SP11 normal": ("1.4", "mu + eps * std", "torch.normal(mu, std)", "cannot be differentiated"),
    "SP11 sample": ("1.4", "mu + eps * std", "Normal(mu, std).sample()", "No gradient"),
    "SP13 detach": ("1.4", STD, f"{STD}.detach()", "std detached"),
    "SP15 no mu": ("1.4", "mu + eps * std", "eps * std", "without mu"),
    "SP17 seed": ("1.4", f"eps = {DRAW}", f"torch.manual_seed(0); eps = {DRAW}", "seeded inside"),
    "SP19 softplus": ("1.4", STD, "F.softplus(logvar)", "softplus"),
    "SP21 ones": ("1.4", DRAW, "torch.ones_like(std)", "same noise"),
    "SP23 abs": ("1.4", STD, "logvar.abs()", "abs"),
    "SP bracket": ("1.4", "mu + eps * std", "(mu + eps) * std", "std multiplies mu as well"),
    "SP pairs": ("1.4", DRAW, "torch.randn(len(std) // 2 + 1, std.shape[1]).repeat(2, 1)[: len(std)].to(std)", "share their noise"),
    "SP rescaled": ("1.4", DRAW, "F.normalize(torch.randn_like(std), dim=1) * std.shape[1] ** 0.5", "never gets past"),
    "SP numpy": ("1.4", DRAW, "torch.tensor(__import__('numpy').random.randn(*std.shape)).to(std)", "own generator"),
    "SP clamped": ("1.4", STD, "torch.exp(0.5 * logvar.clamp(-5, 5))", "spread of z"),
    "SP not in eval": ("1.4", "mu + eps * std", "mu + eps * std if torch.is_grad_enabled() else mu", "under no_grad"),
    "SP no std": ("1.4", "mu + eps * std", "mu + eps", "not scaled at all"),
    "SP on the CPU": ("1.4", DRAW, "torch.randn(std.shape)", "GPU"),
    "DE02 no padding": ("1.5", "2 * width, width, kernel_size=4, stride=2, padding=1", "2 * width, width, 4, 2", "padding 0"),
    "DE04 sigmoid": ("1.5", "torch.tanh(self.conv4(x))", "torch.sigmoid(self.conv4(x))", "cannot reach -1"),
    "DE06 Conv2d": ("1.5", "self.conv2 = nn.ConvTranspose2d", "self.conv2 = nn.Conv2d", "is a Conv2d"),
    "DE08 3x3": ("1.5", "width, out_channels, kernel_size=4", "width, out_channels, kernel_size=3", "kernel_size 3"),
    "DE10 no relu": ("1.5", "F.relu(self.bn2(self.conv2(x)))", "self.bn2(self.conv2(x))", "no activation"),
    "DE12 tanh twice": ("1.5", "torch.tanh(self.conv4(x))", "torch.tanh(torch.tanh(self.conv4(x)))", "tanh twice"),
    "DE14 BatchNorm": ("1.5", "torch.tanh(self.conv4(x))", "torch.tanh(F.batch_norm(self.conv4(x), None, None, training=True))", "tanh"),
    "DE clamp": ("1.5", "torch.tanh(self.conv4(x))", "self.conv4(x).clamp(-1, 1)", "a clamp to [-1, 1]"),
    "DE squeezed": ("1.5", "torch.tanh(self.conv4(x))", "torch.tanh(self.conv4(x)).squeeze(1)", "shape"),
    "DE no tanh": ("1.5", "torch.tanh(self.conv4(x))", "self.conv4(x)", "no activation"),
    "VF01 always z": ("1.6", CODE, "z = reparameterize(mu, logvar)", "In eval mode a sample"),
    "VF03 always mu": ("1.6", CODE, "z = mu", "the KL has no purpose"),
    "VF05 detach": ("1.6", CODE, "z = reparameterize(mu, logvar).detach() if self.training else mu", "detach"),
    "VF07 logvar": ("1.6", CODE, "z = logvar", "logvar is decoded"),
    "VF09 twice": ("1.6", CODE, "z = reparameterize(*self.encoder(x)) if self.training else mu", "the encoder 2 times"),
    "VF another's mode": ("1.6", CODE, CODE.replace("self.training", "self.encoder.training"), "changed places"),
    "VF normal": ("1.6", CODE, "z = torch.normal(mu, (0.5 * logvar).exp()) if self.training else mu", "gradient"),
    "VF one noise": ("1.6", CODE, "z = mu + torch.randn(len(mu), 1) * (0.5 * logvar).exp() if self.training else mu", "one noise for all"),
    "VF inverted": ("1.6", CODE, "z = mu if self.training else reparameterize(mu, logvar)", "changed places"),
    "TR01 no zero_grad": ("1.7", "    optimizer.zero_grad()\n", "", "never cleared"),
    "TR03 step first": ("1.7", "    loss.backward()\n    optimizer.step()\n", "    optimizer.step()\n    loss.backward()\n", "steps before"),
    "TR05 no backward": ("1.7", "    loss.backward()\n", "", "computes the gradients"),
    "TR07 swapped": ("1.7", CALL, CALL.replace("mu, logvar", "logvar, mu"), "in this order"),
    "TR09 item": ("1.7", CALL, f"{CALL}; loss = loss.item()", "needs the tensor"),
    "TR11 tensors": ("1.7", "return loss.item(), recon_loss.item()", "return loss, recon_loss", "with .item()"),
    "TR15 new optimizer": ("1.7", "    optimizer.zero_grad()\n", "    optimizer = torch.optim.Adam(model.parameters())\n", "optimizer that is given"),
    "TR23 retain_graph": ("1.7", "loss.backward()", "loss.backward(retain_graph=True)", "retain_graph"),
    "TR part": ("1.7", "loss.backward()", "recon_loss.backward()", "other than the loss"),
    "TR uphill": ("1.7", "loss.backward()", "(-loss).backward()", "uphill"),
    "TR scaled": ("1.7", "loss.backward()", "(loss / len(x)).backward()", "0.125 times"),
    "TR x and recon": ("1.7", CALL, CALL.replace("recon, x", "x, recon"), "in this order"),
    "TR twice": ("1.7", CALL, CALL.replace("(recon", "(model(x)[0]"), "2 times"),
    "TR clear late": ("1.7", "    optimizer.step()\n", "    optimizer.zero_grad()\n    optimizer.step()\n", "nothing is left"),
    "TR eval": ("1.7", "    recon, mu", "    model.eval()\n    recon, mu", "eval mode"),
    "PR01 rand": ("1.8", PRIOR, PRIOR.replace("randn", "rand"), "never negative"),
    "PR05 gradient": ("1.8", "with torch.no_grad():", "if True:", "carry a gradient"),
    "PR07 device": ("1.8", PRIOR, "torch.randn(num_samples, latent_dim)", "GPU"),
    "PR09 one z": ("1.8", PRIOR, "torch.randn(1, latent_dim, device=weight.device).repeat(num_samples, 1)", "not one"),
    "PR seeded": ("1.8", f"z = {PRIOR}", f"torch.manual_seed(42); z = {PRIOR}", "seeded inside"),
    "PR frozen": ("1.8", "        decoder.eval()\n", "        decoder.eval().requires_grad_(False)\n", "frozen for good"),
    "PR dtype": ("1.8", PRIOR, "torch.randn(num_samples, latent_dim, device=weight.device)", "raises RuntimeError"),
    "PR train mode": ("1.8", "        decoder.eval()\n", "", "train mode"),
    "PR not restored": ("1.8", "decoder.train(was_training)", "pass", "not restored"),
    "CM01 1000": ("1.9", MEAN, "one_hot.T @ codes / 1000", "count them"),
    "CM01 equal": ("1.9", MEAN, "one_hot.T @ codes / (len(codes) / num_classes)", "not equally large"),
    "CM03 no T": ("1.9", MEAN, "one_hot @ codes / counts[:, None]", "cannot be multiplied"),
    "CM07 no 10": ("1.9", ONE_HOT, "F.one_hot(labels.long()).to(codes)", "class_means"),
    "CM09 device": ("1.9", ONE_HOT, "F.one_hot(labels.long(), num_classes).float()", "one device"),
    "CM11 columns": ("1.9", MEAN, "one_hot.T @ codes / counts", "columns"),
    "CM transposed": ("1.9", MEAN, "codes.T @ one_hot / counts", "transposed"),
    "CM in place": ("1.9", MEAN, "one_hot.T @ codes.mul_(2) / counts[:, None]", "codes is changed in place"),
    "CM counts": ("1.9", "one_hot.sum(dim=0)", "one_hot.mean(dim=0)", "count each class"),
    "CM integers": ("1.9", ONE_HOT, "F.one_hot(labels.long(), num_classes)", "different dtypes"),
    "IP01 arange": ("1.10", T, "(torch.arange(num_steps, device=start.device) / num_steps)[:, None]", "stops before end"),
    "IP03 t * b": ("1.10", LINE, "start + t * end", "along the difference"),
    "IP05 shape": ("1.10", T, T.replace("[:, None]", "[None, :]"), "size of tensor"),
    "IP07 backwards": ("1.10", LINE, "(1 - t) * end + t * start", "backwards"),
    "IP device": ("1.10", T, "torch.linspace(0, 1, num_steps)[:, None]", "GPU"),
    "IP one short": ("1.10", T, T.replace("num_steps,", "num_steps - 1,"), "shape (4, 7)"),
}  # fmt: skip

# mistakes that cannot be made here, and why
IMPOSSIBLE = {
    "KL25": "kl_divergence is given mu and logvar only; there are no pixels in reach",
    "EF08": "the encoder does not sample: reparameterize is called in VAE.forward",
    "TR13": "train_step is given its optimizer; fit refuses one that lacks weights (test_train.py)",
    "TR17": "the learning rate is in the optimizer; fit stops when the loss is not finite (test_train.py)",
    "TR19": "train_step is given its batch; the loop over the loader is in train_epoch",
    "TR21": "the batch is brought to the device in train_epoch",
    "TR25": "evaluate is not an exercise; it leaves the weights alone (test_train.py)",
    "PR03": "codes are (B, D) here; another shape is refused by the decoder with a sentence of its own",
    "CM05": "class_means is given codes, not the network",
    "CM13": "class_means is given codes, not images",
    "CM15": "codes are (B, D) here: nothing is reshaped before decoding",
    "IP09": "interpolate does not decode",
    "IP11": "class_means gives (10, D) here, so a row of it is (D,)",
}

HARMLESS = {
    "mse either way": ("1.1", "F.mse_loss(recon, x)", "F.mse_loss(x, recon)"),
    "mse by hand": ("1.1", "F.mse_loss(recon, x)", "(recon - x).pow(2).sum() / x.numel()"),
    "mse module": ("1.1", "F.mse_loss(recon, x)", "nn.MSELoss()(recon, x)"),
    "mu**2": ("1.1", KL, "-0.5 * (1 + logvar - mu**2 - torch.exp(logvar))"),
    "mu*mu": ("1.1", KL, "-1 / 2 * (1 + logvar - mu * mu - torch.exp(logvar))"),
    "square": ("1.1", KL, "0.5 * (torch.square(mu) + logvar.exp() - logvar - 1)"),
    "distributions": ("1.1", KL, "torch.distributions.kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0))"),
    "mean over both": ("1.1", "logvar).mean()", "logvar).mean(dim=1).mean()"),
    "positional": ("1.2", CONV1, "nn.Conv2d(in_channels, width, 4, 2, 1)"),
    "pairs": ("1.2", CONV1, "nn.Conv2d(in_channels, width, (4, 4), (2, 2), (1, 1))"),
    "no bias before BatchNorm": ("1.2", CONV1, CONV1.replace("padding=1", "padding=1, bias=False")),
    "valid": ("1.2", HEAD, HEAD.replace("=4)", '=4, padding="valid")')),
    "relu method": ("1.3", "F.relu(self.bn1(self.conv1(x)))", "self.bn1(self.conv1(x)).relu()"),
    "relu in place": ("1.3", "F.relu(self.bn1(self.conv1(x)))", "F.relu_(self.bn1(self.conv1(x)))"),
    "relu module": ("1.3", "F.relu(self.bn1(self.conv1(x)))", "nn.ReLU()(self.bn1(self.conv1(x)))"),
    "clamp": ("1.3", "F.relu(self.bn1(self.conv1(x)))", "self.bn1(self.conv1(x)).clamp(min=0)"),
    "squeeze two": ("1.3", "self.conv_mu(x).flatten(1)", "self.conv_mu(x).squeeze(3).squeeze(2)"),
    "view": ("1.3", "self.conv_mu(x).flatten(1)", "self.conv_mu(x).view(len(x), -1)"),
    "logvar first": ("1.3", "mu = self.conv_mu(x).flatten(1)", "later = self.conv_logvar(x); mu = self.conv_mu(x)[:, :, 0, 0]"),
    "root of exp": ("1.4", STD, "logvar.exp().sqrt()"),
    "rsample": ("1.4", "mu + eps * std", "Normal(mu, std).rsample()"),
    "randn": ("1.4", DRAW, "torch.randn(std.shape, device=std.device, dtype=std.dtype)"),
    "normal_": ("1.4", DRAW, "torch.empty_like(std).normal_()"),
    "minus eps": ("1.4", "mu + eps * std", "mu - eps * std"),
    "addcmul": ("1.4", "mu + eps * std", "torch.addcmul(mu, eps, std)"),
    "stride 2": ("1.5", "latent_dim, 4 * width, kernel_size=4", "latent_dim, 4 * width, kernel_size=4, stride=2"),
    "F.tanh": ("1.5", "torch.tanh(self.conv4(x))", "nn.Tanh()(self.conv4(x))"),
    "if else": ("1.6", CODE, "z = mu\n        if self.training:\n            z = reparameterize(mu, logvar)"),
    "clear at the end": ("1.7", "    optimizer.zero_grad()\n    loss.backward()\n    optimizer.step()\n", "    loss.backward()\n    optimizer.step()\n    optimizer.zero_grad()\n"),
    "clear the model": ("1.7", "optimizer.zero_grad()", "model.zero_grad()"),
    "by name": ("1.7", CALL, "loss, recon_loss, kl_loss = loss_fn(recon, x, mu, logvar=logvar)"),
    "train in the step": ("1.7", "    recon, mu", "    model.train()\n    recon, mu"),
    "zeros kept": ("1.7", "optimizer.zero_grad()", "optimizer.zero_grad(set_to_none=False)"),
    "inference mode": ("1.8", "torch.no_grad()", "torch.inference_mode()"),
    "to the device": ("1.8", PRIOR, "torch.randn(num_samples, latent_dim).to(weight)"),
    "from a distribution": ("1.8", PRIOR, "Normal(torch.zeros_like(weight[:1, 0, 0, 0]), 1).sample((num_samples, latent_dim))[..., 0]"),
    "loop": ("1.9", MEAN, "torch.stack([codes[labels.to(codes.device) == c].mean(0) for c in range(num_classes)])"),
    "index_add": ("1.9", MEAN, "torch.zeros(num_classes, codes.shape[1]).to(codes).index_add_(0, labels.to(codes.device), codes) / counts.view(-1, 1)"),
    "bincount": ("1.9", "counts = one_hot.sum(dim=0)", "counts = torch.bincount(labels, minlength=num_classes).to(codes)"),
    "no class, no nan": ("1.9", "counts = one_hot.sum(dim=0)", "counts = one_hot.sum(dim=0).clamp(min=1)"),
    "layers of one's own": ("1.3", "F.relu(self.bn2(self.conv2(x)))", "nn.Sequential(self.conv2, self.bn2, nn.ReLU())(x)"),
    "gradients by hand": ("1.7", "    loss.backward()\n", "    loss.backward(inputs=list(model.parameters()))\n"),
    "a copy": ("1.8", "images = decoder(z)", "images = __import__('copy').deepcopy(decoder)(z)"),
    "any stride": ("1.5", "latent_dim, 4 * width, kernel_size=4", "latent_dim, 4 * width, kernel_size=4, stride=3"),
    "lerp": ("1.10", LINE, "torch.lerp(start, end, t)"),
    "difference": ("1.10", LINE, "start + t * (end - start)"),
    "unsqueeze": ("1.10", T, "torch.linspace(0, 1, num_steps).to(start).unsqueeze(1)"),
}  # fmt: skip

NAMES = dict(
    torch=torch, F=F, nn=nn, math=math, Normal=Normal, reparameterize=model.reparameterize,
    require_shape=model.require_shape, require_positive=model.require_positive,
    require_same_shape=loss.require_same_shape, require_labels=latent.require_labels, require_ends=latent.require_ends,
)  # fmt: skip


@pytest.fixture
def check():
    return checks.Check(checks_of_01.check.exercises, checks_of_01.check.reminders)


def source_of(number):
    """The text of an exercise's finished version, as a notebook's cell holds it."""
    return "\n\n".join(inspect.getsource(finished) for finished in checks_of_01.check.exercises[number].finished)


def answers(number, source):
    """Run a cell with the source, as IPython does: its text can be found by the name of its file."""
    file = f"<cell {number} {hash(source)}>"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    names = dict(NAMES)
    exec(compile(source, file, "exec"), names)
    return [names[finished.__name__] for finished in checks_of_01.check.exercises[number].finished]


def changed(number, old, new):
    source = source_of(number)
    assert old in source
    return source.replace(old, new)


def failure(check, number, source):
    with pytest.raises(checks.CheckFailed) as failed:
        check(number, *answers(number, source))
    return str(failed.value)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(check, name):
    number, old, new, hint = MISTAKES[name]
    message = failure(check, number, changed(number, old, new))
    assert hint in message and "cannot be used" not in message


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_variant_is_done_with_every_seed(check, name):
    number, old, new = HARMLESS[name]
    student = answers(number, changed(number, old, new))
    for check.seed in range(20):
        got = check(number, *student)
        assert (list(got) if len(student) > 1 else [got]) == student
    assert check.states[number] == "done"


def test_a_module_made_in_init_may_be_used_in_forward(check):
    made = ("        super().__init__()\n", "        super().__init__()\n        self.relu = nn.ReLU()\n")
    source = changed("1.3", *made).replace("F.relu(", "self.relu(")
    (student,) = answers("1.3", source)
    assert check("1.3", student) is student


@pytest.mark.parametrize("number", checks_of_01.check.exercises)
def test_the_finished_version_written_out_is_done(check, number):
    check(number, *answers(number, source_of(number)))
    assert check.states[number] == "done"


# the frame: open, crashed, hints that grow plainer, nothing left behind


def with_blanks(number, *blanks):
    source = source_of(number)
    for old, new in blanks:
        assert old in source
        source = source.replace(old, new)
    return answers(number, source)


def test_an_open_blank_is_named_and_the_finished_version_carries_on(check, capsys):
    student = with_blanks("1.4", (f"eps = {DRAW}", "eps = ..."), ("return mu + eps * std", "return ..."))
    assert check("1.4", *student) is model.reparameterize
    assert "1.4 open: 2 of 3 blanks are still to fill (eps, the returned value)" in capsys.readouterr().out
    assert check.states["1.4"] == "open"


def test_of_several_functions_each_blank_says_whose_it_is(check, capsys):
    got = check("1.1", *with_blanks("1.1", (f"return {KL}", "return ..."), ("loss = mse + beta * kl", "loss = ...")))
    assert got == (loss.kl_divergence, loss.recon_loss, loss.vae_loss)
    assert "(the returned value of kl_divergence, loss of vae_loss)" in capsys.readouterr().out


def test_an_ellipsis_in_an_index_is_no_blank(check):
    assert check("1.6", *with_blanks("1.6", ("else mu", "else mu[..., :]")))
    assert check.states["1.6"] == "done"


def test_two_exercises_of_one_class_are_told_apart(check, capsys):
    (student,) = with_blanks("1.2", (f"self.conv1 = {CONV1}", "self.conv1 = ..."))
    assert check("1.2", student) is model.Encoder
    assert check("1.3", model.Encoder) is model.Encoder
    assert check.states["1.2"] == "open" and check.states["1.3"] == "done"
    assert "self.conv1" in capsys.readouterr().out


def test_a_wrong_forward_is_seen_behind_open_layers(check):
    blank = (f"self.conv1 = {CONV1}", "self.conv1 = ...")
    (student,) = with_blanks("1.3", blank, ("return mu, logvar", "return logvar, mu"))
    encoder = check("1.2", student)
    with pytest.raises(checks.CheckFailed, match="mixes up mu and logvar"):
        check("1.3", encoder)


def test_the_finished_version_handed_in_counts_as_open(check, capsys):
    assert check("1.4", model.reparameterize) is model.reparameterize
    assert check.states["1.4"] == "open" and "not one of your own" in capsys.readouterr().out


def test_strict_makes_an_open_exercise_fail(check, monkeypatch):
    monkeypatch.setenv("VAE_TUTORIAL_STRICT", "1")
    with pytest.raises(checks.CheckFailed, match="1.4 open: 1 of 3"):
        check("1.4", *with_blanks("1.4", (f"eps = {DRAW}", "eps = ...")))


def test_a_crash_names_the_line_of_the_student(check):
    message = failure(check, "1.4", changed("1.4", STD, "torch.exp(0.5 * logsigma)"))
    assert message.startswith("1.4 crashed: line ") and "`std = torch.exp(0.5 * logsigma)`" in message
    assert "raises NameError: name 'logsigma' is not defined" in message


def test_hints_change_and_the_third_points_to_the_solution(check):
    messages = [failure(check, "1.4", changed("1.4", STD, "torch.exp(logvar)")) for _ in range(3)]
    assert ["In plain words" in message for message in messages] == [False, True, True]
    assert ["folded solution" in message for message in messages] == [False, False, True]


def test_every_exercise_has_plainer_words_for_the_second_failure(check):
    assert check.reminders.keys() == check.exercises.keys()


def test_a_failure_says_what_later_cells_use_and_shows_no_traceback(check):
    with pytest.raises(checks.CheckFailed) as failed:
        check("1.4", *answers("1.4", changed("1.4", STD, "torch.exp(logvar)")))
    assert failed.value._render_traceback_() == [str(failed.value)]
    assert "later cells use your reparameterize" in str(failed.value)


def test_a_check_after_a_failure_starts_anew(check):
    failure(check, "1.4", changed("1.4", STD, "torch.exp(logvar)"))
    check("1.4", *answers("1.4", source_of("1.4")))
    assert check.states["1.4"] == "done" and check.failures["1.4"] == 0


def test_an_endless_loop_is_cut_off(check, monkeypatch):
    monkeypatch.setattr(checks, "SECONDS", 0.3)
    message = failure(check, "1.4", changed("1.4", f"std = {STD}", "while True: pass"))
    assert "endless loop" in message


def test_an_answer_leaves_no_trace(check, capsys):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    meddling = "torch.manual_seed(1); random.seed(1); print('noise'); torch.set_grad_enabled(False); std = " + STD
    failure(check, "1.4", "import random\n" + changed("1.4", f"std = {STD}", meddling))
    assert torch.equal(before[0], torch.get_rng_state()) and random.getstate() == before[2]
    assert (before[1] == np.random.get_state()[1]).all() and torch.is_grad_enabled()
    assert "noise" not in capsys.readouterr().out


@pytest.mark.parametrize("number", checks_of_01.check.exercises)
def test_a_check_draws_nothing_from_the_random_state(check, number):
    before = torch.get_rng_state()
    check(number, *answers(number, source_of(number)))
    assert torch.equal(before, torch.get_rng_state())


def test_an_unknown_number_and_a_result_instead_of_a_function_are_refused(check):
    with pytest.raises(ValueError, match="no exercise '9.9': choose one of 1.1"):
        check("9.9", model.VAE)
    with pytest.raises(ValueError, match=r'check\("1.1", kl_divergence, recon_loss, vae_loss\)'):
        check("1.1", torch.tensor(1.0))


def test_the_summary_counts_and_adds_up_the_minutes(check, capsys):
    check("1.4", *answers("1.4", source_of("1.4")))
    check.summary()
    text = capsys.readouterr().out
    assert "1.4 done: the reparameterization" in text and "1.1 not checked: the loss" in text
    assert "1 of 10 exercises done; about 95 of 105 minutes are left." in text


def test_a_card_says_the_same_in_html_and_in_text():
    card = checks.Card("done", ["a < b", "c"])
    assert repr(card) == "a < b\nc" and "a &lt; b<br>c" in card._repr_html_()


def test_every_impossible_mistake_is_none_that_is_tested():
    assert not {name.split()[0] for name in MISTAKES} & set(IMPOSSIBLE)
