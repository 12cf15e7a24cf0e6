"""What students write in notebook 03, and what the checks must say of it.

The mistakes that are rows of the tables in vae_tutorial/checks/latent_space.py are tested there, as rows; here are those
that its readers name. The name of a mistake tells the exercise's part: MAP the map, TV the traversal, SL slerp,
TH the thickness, AD the direction of an attribute, PC the principal components; LA07 is that of the catalogue.
"""

SHARES = "(torch.arange(n) + 0.5) / n"
Q = "torch.special.ndtri(shares)"
Z_1 = "q.repeat(n)"
Z_2 = "q.flip(0).repeat_interleave(n)"
GRID = "make_grid(images, nrow=n, padding=0)[0]"
MU = "encode_all(encoder, images).cpu()"
PHI = "torch.special.ndtr(mu)"
VAR = "mu.var(dim=0)"
ORDER = "activity.argsort(descending=True)"
COPIES = "code.repeat(len(values), 1)"
PUT = "codes[:, dim] = values"
COSINE = "start @ end / (start.norm() * end.norm())"
ANGLE = "torch.acos(cosine)"
ARC = "(torch.sin((1 - t) * omega) * start + torch.sin(t * omega) * end) / torch.sin(omega)"
FALL_BACK = "if not torch.sin(omega) > 1e-3:"
INK = "(images[:, 0] + 1) / 2"
OUTLINE = "(across.pow(2) + down.pow(2)).sqrt().sum(dim=(1, 2))"
THICK = "2 * ink.sum(dim=(1, 2)) / outline"
HIGH = "own_values > own_values.median()"
DIFFERENCE = "own_codes[high].mean(dim=0) - own_codes[~high].mean(dim=0)"
AVERAGE = "torch.stack(directions).mean(dim=0)"
CENTRED = "codes - codes.mean(dim=0)"
COVARIANCE = "centred.T @ centred / (len(codes) - 1)"
COMPONENTS = "vectors.T.flip(0)[:k]"
VARIANCES = "values.flip(0)[:k]"

# name: (exercise, text of the finished version, what a student wrote, what the sentence must hold)
MISTAKES = {
    "MAP linspace 0 to 1": ("3.1", SHARES, "torch.linspace(0, 1, n)", "infinite in places, as the quantiles of 0 and 1 are"),
    "MAP icdf": ("3.1", f"q = {Q}", "q = Normal(0.0, 1.0).icdf(torch.linspace(0, 1, n))", "infinite in places"),
    "MAP 0.02 to 0.98": ("3.1", SHARES, "torch.linspace(0.02, 0.98, n)", "The shares go from 0.02 to 0.98 for n = 5, but the middles"),
    "MAP n + 1": ("3.1", SHARES, "(torch.arange(n) + 0.5) / (n + 1)", "The shares go from 0.0833 to 0.75"),
    "MAP from 1": ("3.1", SHARES, "(torch.arange(1, n + 1) + 0.5) / n", "nan in places, as quantiles outside 0 to 1 are"),
    "MAP even steps": ("3.1", f"q = {Q}", "q = torch.linspace(-2, 2, n)", "from -2.00 to 2.00, where 5 quantiles from -1.28 to 1.28 are expected. Its steps are even"),
    "MAP abs": ("3.1", Q, f"{Q}.abs()", "The shares go from 0.5 to 0.9 for n ="),
    "MAP 20 typed in": ("3.1", SHARES, "(torch.arange(20) + 0.5) / 20", "shape (100, 2)"),
    "MAP both repeat": ("3.1", Z_2, "q.repeat(n)", "right values in a wrong order"),
    "MAP double": ("3.1", SHARES, "(torch.arange(n).double() + 0.5) / n", "of type torch.float64, but the decoder takes torch.float32"),
    "MAP stack 0": ("3.1", "torch.stack([z_1, z_2], dim=1)", "torch.stack([z_1, z_2])", "is transposed"),
    "MAP columns": ("3.1", GRID, "torch.cat([torch.cat(list(part[:, 0]), 0) for part in images.split(n)], 1)", "right pixels in wrong places"),
    "MAP 0 to 1": ("3.1", GRID, "make_grid((images + 1) / 2, nrow=n, padding=0)[0]", "Every pixel x becomes 0.5 x + 0.5"),
    "MAP normalised": ("3.1", GRID, "make_grid(images, nrow=n, padding=0, normalize=True)[0]", "Every pixel x becomes 0.505 x + 0.504"),
    "MAP clamped": ("3.1", GRID, f"{GRID}.clamp(0, 1)", "passed through relu"),
    "MAP z": ("3.1", MU, "(lambda m, v: m + torch.randn_like(m) * (0.5 * v).exp())(*encoder(images))", "Two calls put the images in different places"),
    "MAP train mode": ("3.1", MU, "encoder(images)[0].detach()", "Phi of mu in train mode"),
    "MAP eval left": ("3.1", MU, "encoder.eval()(images)[0].detach()", "left in another mode"),
    "MAP logvar": ("3.1", MU, "torch.cat([encoder.eval()(x)[1] for x in images.split(1)]).detach()", "Phi of logvar"),
    "MAP gradient": ("3.1", MU, "encoder.eval()(images)[0]", "carry a gradient"),
    "MAP no Phi": ("3.1", PHI, "mu", "returns mu itself"),
    "MAP images changed": ("3.1", MU, "encode_all(encoder, images.clamp_(0, 1)).cpu()", "changes images in place"),
    "TV mean": ("3.2", VAR, "mu.mean(dim=0)", "mean stood in the place of var"),
    "TV var of all": ("3.2", VAR, "mu.var()", "activity has shape ()"),
    "TV sum": ("3.2", VAR, "(mu - mu.mean(0)).pow(2).sum(0)", "activity is 39 times what is expected"),
    "TV sort": ("3.2", ORDER, "activity.sort(descending=True).values", "the numbers of the dimensions, which are whole"),
    "TV from 1": ("3.2", ORDER, f"{ORDER} + 1", "off by +1 everywhere"),
    "TV one value": ("3.2", "return order, activity", "return order", "returns one value"),
    "LA07 in place": ("3.2", f"{COPIES}\n    # in row k, dimension dim is set to values[k]\n    {PUT}", "[]\n    for value in values:\n        code[dim] = value\n        codes.append(code)\n    codes = torch.stack(codes)", "changes code in place"),
    "LA07 one base": ("3.2", f"{COPIES}\n    # in row k, dimension dim is set to values[k]\n    {PUT}", "[]\n    base = code.clone()\n    for value in values:\n        base[dim] = value\n        codes.append(base)\n    codes = torch.stack(codes)", "Every row has the last value"),
    "LA07 accumulated": ("3.2", f"{COPIES}\n    # in row k, dimension dim is set to values[k]\n    {PUT}", "[]\n    base = code.clone()\n    for value in values:\n        base[dim] += value\n        codes.append(base.clone())\n    codes = torch.stack(codes)", "add up from row to row"),
    "TV next": ("3.2", PUT, "codes[:, dim - 1] = values", "Dimension 1 takes the values, where dimension 2 should: they count from 0"),
    "TV zeros": ("3.2", COPIES, "torch.zeros(len(values), len(code)).to(code)", "look at dimension 0, 1, 3"),
    "SL sum of norms": ("3.3", COSINE, "start @ end / (start.norm() + end.norm())", "omega is 1.49, where the angle between start and end is 1.1"),
    "SL asin": ("3.3", ANGLE, "torch.asin(cosine)", "look at cosine and omega"),
    "SL no norms, no clamp": ("3.3", f"{COSINE}\n", "start @ end\n    cosine = cosine.clone()\n", "acos takes the dot product of two *directions*"),
    "SL backwards": ("3.3", ARC, ARC.replace("1 - t", "T").replace("(t *", "((1 - t) *").replace("(T)", "t"), "The first code is end, and the last is start"),
    "SL outside": ("3.3", ARC, "((1 - t) * torch.sin(omega) * start + t * torch.sin(omega) * end) / torch.sin(omega)", "The path is a straight line"),
    "SL right angle": ("3.3", ARC, "torch.cos(t * torch.pi / 2) * start + torch.sin(t * torch.pi / 2) * end", "code 2 is 0.924 start + 0.383 end"),
    "SL no fallback": ("3.3", FALL_BACK, "if False:", "For codes in the same direction slerp gives nan or inf"),
    "SL fallback at 0 only": ("3.3", FALL_BACK, "if omega == 0 or omega.isnan():", "For opposite codes the path does not lead"),
    "SL float64": ("3.3", ARC, f"({ARC}).double()", "float64"),
    "SL in place": ("3.3", COSINE, "start.div_(start.norm()) @ end / end.norm()", "changes start in place"),
    "TH 2 below": ("3.4", THICK, "ink.sum(dim=(1, 2)) / (2 * outline)", "0.25 times what is expected"),
    "TH batch": ("3.4", OUTLINE, "(across.pow(2) + down.pow(2)).sqrt().sum()", "sum got no dim"),
    "TH one number": ("3.4", THICK, "2 * ink.sum() / outline.sum()", "one number per image"),
    "TH in place": ("3.4", INK, "images.add_(1).div_(2)[:, 0]", "changes images in place"),
    "AD no minus": ("3.4", DIFFERENCE, "own_codes[high].mean(dim=0)", "high codes counts 0.25, and that of the others 0"),
    "AD nan": ("3.4", HIGH, "own_values > own_values.max()", "nan, as the mean of no codes is"),
    "AD summed": ("3.4", AVERAGE, "torch.stack(directions).sum(dim=0)", "The differences are added up"),
    "AD 10 classes": ("3.4", AVERAGE, "torch.stack(directions).sum(dim=0) / 10", "added up and multiplied by 0.1"),
    "AD last": ("3.4", AVERAGE, "difference", "class 4 counts 0, class 8 counts 1"),
    "AD mean of all": ("3.4", AVERAGE, "torch.stack(directions).mean()", "shape ()"),
    "PC D": ("3.5", COVARIANCE, "centred.T @ centred / codes.shape[1]", "5.57 times what is expected"),
    "PC ascending": ("3.5", COMPONENTS, "vectors.T[:k]", "directions of rank 7, 6, 5"),
    "PC k too early": ("3.5", COMPONENTS, "vectors.T[:k].flip(0)", "directions of rank 5, 6, 7"),
    "PC columns": ("3.5", COMPONENTS, "vectors.flip(1)[:, :k]", "is transposed"),
    "PC values last": ("3.5", VARIANCES, "values[-k:]", "in reverse order"),
    "PC in place": ("3.5", CENTRED, "codes.sub_(codes.mean(dim=0))", "changes codes in place"),
    "PC float32": ("3.5", COMPONENTS, "vectors.T.flip(0)[:k].float()", "float32"),
}  # fmt: skip

# right answers with a remark: (exercise, text, what a student wrote, what the remark must hold)
REMARKS = {
    "MAP on the GPU": ("3.1", MU, "encode_all(encoder, images)", "on a GPU the places stay there"),
    "TV float32": ("3.2", COPIES, "code.repeat(len(values), 1).float()", "float32 only"),
    "TV on the CPU": ("3.2", COPIES, "torch.ones(len(values), 1) * code", "on the CPU only"),
    "SL on the CPU": ("3.3", "torch.linspace(0, 1, num_steps, device=start.device, dtype=start.dtype)[:, None]", "torch.linspace(0, 1, num_steps)[:, None]", "on the CPU only"),
    "TH float32": ("3.4", THICK, "(2 * ink.sum(dim=(1, 2)) / outline).float()", "float32 only"),
    "TH a small number in the root": ("3.4", OUTLINE, "(across**2 + down**2 + 1e-12).sqrt().sum((-2, -1))", "an image of one colour gets a thickness here"),
    "AD float32": ("3.4", AVERAGE, "torch.stack(directions).float().mean(dim=0)", "float32 only"),
    "PC on the CPU": ("3.5", CENTRED, "codes - torch.ones(1, len(codes), dtype=codes.dtype) @ codes / len(codes)", "on the CPU only"),
}  # fmt: skip

# mistakes that cannot be made here, and why
IMPOSSIBLE = {
    "LA11": "nothing is written for it: the norm midway is the question to predict in 3.3, and is measured below it",
}

HARMLESS = {
    "map: linspace of the middles": ("3.1", SHARES, "torch.linspace(0.5 / n, 1 - 0.5 / n, n)"),
    "map: ends cut off": ("3.1", SHARES, "torch.linspace(0, 1, 2 * n + 1)[1::2]"),
    "map: icdf": ("3.1", Q, "Normal(0.0, 1.0).icdf(shares)"),
    "map: erfinv": ("3.1", Q, "2**0.5 * torch.erfinv(2 * shares - 1)"),
    "map: minus q": ("3.1", Z_2, "(-q).repeat_interleave(n)"),
    "map: meshgrid": ("3.1", Z_2, "torch.meshgrid(q.flip(0), q, indexing='ij')[0].flatten()"),
    "map: expand": ("3.1", Z_1, "q[None].expand(n, n).reshape(-1)"),
    "map: cartesian_prod": ("3.1", "torch.stack([z_1, z_2], dim=1)", "torch.cartesian_prod(q.flip(0), q).flip(1)"),
    "map: by transposing": ("3.1", GRID, "images[:, 0].reshape(n, n, *images.shape[2:]).transpose(1, 2).reshape(n * images.shape[2], -1)"),
    "map: by cat": ("3.1", GRID, "torch.cat([torch.cat(list(row[:, 0]), dim=1) for row in images.split(n)])"),
    "map: mean of the channels": ("3.1", GRID, "make_grid(images, n, 0).mean(dim=0)"),
    "map: Normal cdf": ("3.1", PHI, "Normal(0.0, 1.0).cdf(mu)"),
    "map: erf by hand": ("3.1", PHI, "0.5 * (1 + torch.erf(mu / 2**0.5))"),
    "traverse: correction 0": ("3.2", VAR, "mu.var(dim=0, correction=0)"),
    "traverse: by hand": ("3.2", VAR, "(mu - mu.mean(0)).pow(2).mean(0)"),
    "traverse: std squared": ("3.2", VAR, "mu.std(0) ** 2"),
    "traverse: sort": ("3.2", ORDER, "activity.sort(descending=True).indices"),
    "traverse: topk": ("3.2", ORDER, "torch.topk(activity, len(activity)).indices"),
    "traverse: flip": ("3.2", ORDER, "activity.argsort().flip(0)"),
    "traverse: minus": ("3.2", ORDER, "torch.argsort(-activity)"),
    "traverse: expand and clone": ("3.2", COPIES, "code.expand(len(values), -1).clone()"),
    "traverse: stack": ("3.2", COPIES, "torch.stack([code] * len(values))"),
    "traverse: loop": ("3.2", PUT, "for row, value in zip(codes, values):\n        row[dim] = value"),
    "slerp: F.cosine_similarity": ("3.3", COSINE, "F.cosine_similarity(start, end, dim=0)"),
    "slerp: normalised first": ("3.3", COSINE, "(F.normalize(start, dim=0) * F.normalize(end, dim=0)).sum()"),
    "slerp: torch.dot": ("3.3", COSINE, "torch.dot(start, end) / start.pow(2).sum().sqrt() / torch.linalg.norm(end)"),
    "slerp: a clamp": ("3.3", ANGLE, "cosine.clamp(-1, 1).acos()"),
    "slerp: atan2": ("3.3", ANGLE, "torch.atan2((1 - cosine**2).clamp(min=0).sqrt(), cosine)"),
    "slerp: clip inside": ("3.3", ANGLE, "torch.arccos(torch.clip(cosine, -1 + 1e-7, 1 - 1e-7))"),
    "slerp: two fractions": ("3.3", ARC, "torch.sin((1 - t) * omega) / omega.sin() * start + torch.sin(t * omega) / omega.sin() * end"),
    "slerp: by an orthogonal vector": ("3.3", ARC, "torch.cos(t * omega) * start + torch.sin(t * omega) * (end - torch.cos(omega) * start) / torch.sin(omega)"),
    "slerp: another threshold": ("3.3", FALL_BACK, "if omega.isnan() or omega.sin() < 1e-6 or cosine.abs() > 0.9999:"),
    "slerp: DOT_THRESHOLD": ("3.3", FALL_BACK, "if not cosine.abs() < 0.9995:"),
    "thickness: ink up to 2": ("3.4", INK, "images[:, 0] + 1"),
    "thickness: squeeze": ("3.4", INK, "images.squeeze(1) / 2 + 0.5"),
    "thickness: hypot": ("3.4", OUTLINE, "torch.hypot(across, down).flatten(1).sum(1)"),
    "thickness: outline / 2": ("3.4", THICK, "ink.flatten(1).sum(dim=1) / (outline / 2)"),
    "direction: at least the median": ("3.4", HIGH, "own_values >= own_values.median()"),
    "direction: quantile": ("3.4", HIGH, "own_values > own_values.quantile(0.5)"),
    "direction: by rank": ("3.4", HIGH, "own_values.argsort().argsort() >= len(own_values) // 2"),
    "direction: sums over counts": ("3.4", DIFFERENCE, "own_codes[high].sum(0) / high.sum() - own_codes[~high].sum(0) / (~high).sum()"),
    "direction: sum by len": ("3.4", AVERAGE, "sum(directions) / len(directions)"),
    "pca: keepdim": ("3.5", CENTRED, "codes - codes.mean(0, keepdim=True)"),
    "pca: torch.cov": ("3.5", COVARIANCE, "torch.cov(centred.T)"),
    "pca: einsum": ("3.5", COVARIANCE, "torch.einsum('ni,nj->ij', centred, centred) / (centred.shape[0] - 1)"),
    "pca: flip last": ("3.5", COMPONENTS, "vectors[:, -k:].flip(1).T"),
    "pca: argsort": ("3.5", COMPONENTS, "vectors[:, values.argsort(descending=True)[:k]].T"),
    "pca: other signs": ("3.5", COMPONENTS, "-vectors.T.flip(0)[:k]"),
    "pca: svd": ("3.5", COMPONENTS, "torch.linalg.svd(centred, full_matrices=False).Vh[:k]"),
    "pca: variances of the projections": ("3.5", VARIANCES, "(centred @ components.T).var(dim=0)"),
    "pca: topk": ("3.5", VARIANCES, "values.topk(k).values"),
    "map: kron": ("3.1", Z_2, "torch.kron(q.flip(0), torch.ones(n))"),
    "traverse: where": ("3.2", COPIES, "torch.where(torch.arange(len(code), device=code.device) == dim, values[:, None], code)"),
    "thickness: complex": ("3.4", OUTLINE, "torch.complex(across, down).abs().sum(dim=(1, 2))"),
    "direction: topk": ("3.4", HIGH, "torch.zeros_like(own_values, dtype=torch.bool).index_fill(0, own_values.topk(len(own_values) // 2).indices, True)"),
}  # fmt: skip
