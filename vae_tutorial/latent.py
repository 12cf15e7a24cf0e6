"""Work with latent codes: encode images, average codes, walk between codes, sample them, map them, find directions.

Shapes: N images or codes, D latent dimensions, C channels, H, W height and width; images are 32x32.
"""

import torch
import torch.nn.functional as F
from torchvision.utils import make_grid

from vae_tutorial.model import eval_mode


@torch.no_grad()
def encode_all(encoder, images, batch_size=500):
    """Return the posterior means of all images, in eval mode.

    images: (N, C, 32, 32) in [-1, 1], on any device -> mu: (N, D), on the encoder's device.
    The mode of the encoder is restored.
    """
    device = next(encoder.parameters()).device
    with eval_mode(encoder):
        return torch.cat([encoder(x.to(device))[0] for x in images.split(batch_size)])


def class_means(codes, labels, num_classes=10):
    """Return the mean code of every class.

    codes: (N, D), labels: (N,) from 0 to num_classes - 1 -> (num_classes, D); nan for an empty class.
    """
    # row n has a 1 in the column of image n's class, in the type and on the device of codes:
    # (N, num_classes)
    one_hot = F.one_hot(labels.long(), num_classes).to(codes)
    # how many codes each class has: (num_classes,)
    counts = one_hot.sum(dim=0)
    # the sum of each class's codes, divided by its count: (num_classes, D)
    return one_hot.T @ codes / counts[:, None]


def interpolate(start, end, num_steps):
    """Walk in a straight line from one code to another, both ends included.

    start, end: (D,) -> (num_steps, D), evenly spaced.
    """
    assert start.ndim == 1 and start.shape == end.shape, f"{start.shape} and {end.shape} are not (D,)"
    # from 0 to 1 in num_steps even steps, one a row, with the device and dtype of start: (num_steps, 1)
    t = torch.linspace(0, 1, num_steps, device=start.device, dtype=start.dtype)[:, None]
    # start where t = 0, end where t = 1: (num_steps, D)
    return (1 - t) * start + t * end


def slerp(start, end, num_steps):
    """Walk from code to code on an arc around 0, ends included; in equal angles if both have the same norm.

    start, end: (D,) -> (num_steps, D). Straight where both lie on one line through 0, or one of them is 0.
    Source: Shoemake 1985; White 2016.
    """
    assert start.ndim == 1 and start.shape == end.shape, f"{start.shape} and {end.shape} are not (D,)"
    t = torch.linspace(0, 1, num_steps, device=start.device, dtype=start.dtype)[:, None]  # (num_steps, 1)
    # the dot product of start and end, over the product of their norms; nan if one of them is 0: one number
    cosine = start @ end / (start.norm() * end.norm())
    # the angle, torch.acos; nan where rounding carries the cosine past -1 or 1: one number
    omega = torch.acos(cosine)
    if not torch.sin(omega) > 1e-3:  # also where omega is nan
        return interpolate(start, end, num_steps)
    # the formula of slerp, with omega for the angle: (num_steps, D)
    return (torch.sin((1 - t) * omega) * start + torch.sin(t * omega) * end) / torch.sin(omega)


def sample_prior(decoder, num_samples, latent_dim):
    """Decode codes drawn from the prior, z ~ N(0, I), in eval mode and without gradients.

    decoder: takes z (num_samples, latent_dim); its mode is restored.
    -> images: (num_samples, C, 32, 32) in [-1, 1], on the decoder's device.
    Source: Kingma & Welling 2014, section 2.1: z ~ p(z), then x ~ p(x|z). The decoder gives its mean.
    """
    weight = next(decoder.parameters())  # any weight: it tells the decoder's device and dtype
    # one draw from N(0, I) per image, with the device and dtype of weight: (num_samples, latent_dim)
    z = torch.randn(num_samples, latent_dim, device=weight.device, dtype=weight.dtype)
    # inside eval_mode(decoder), and without gradients, images is the decoder's output for z:
    # (num_samples, C, 32, 32)
    with eval_mode(decoder), torch.no_grad():
        images = decoder(z)
    return images


@torch.no_grad()
def decode_same(decoders, num_samples, latent_dim):
    """Decode the same draws from the prior, z ~ N(0, I), with every decoder.

    decoders: {name: decoder}, all on one device -> {name: images}, (num_samples, C, 32, 32) in [-1, 1] each.
    The decoders are left in eval mode.
    """
    weight = next(next(iter(decoders.values())).parameters())  # any weight: it tells device and dtype
    # one draw from N(0, I) per image, with the device and dtype of weight: (num_samples, latent_dim)
    z = torch.randn(num_samples, latent_dim, device=weight.device, dtype=weight.dtype)
    images = {}
    for name, decoder in decoders.items():
        # put this decoder in eval mode, and decode: (num_samples, C, 32, 32)
        images[name] = decoder.eval()(z)
    return images


def handwriting_grid(model, z, num_classes=10):
    """Decode every code with every label: one handwriting per row, one class per column.

    model: a ConditionalVAE, whose mode is restored; z: (N, D), on its device
    -> images: (N * num_classes, 1, 32, 32) in [-1, 1], row by row, in eval mode and without gradients.
    Source: Kingma et al. 2014, figure 1b.
    """
    # every code num_classes times, its copies next to each other: (N * num_classes, D)
    codes = z.repeat_interleave(num_classes, dim=0)
    # 0, 1, ..., num_classes - 1, and so on, once for every code: (N * num_classes,)
    labels = torch.arange(num_classes).repeat(len(z))
    one_hot = F.one_hot(labels, num_classes).to(z)
    # inside eval_mode(model), and without gradients, images is the output of model.decode for codes and
    # one_hot: (N * num_classes, 1, 32, 32)
    with eval_mode(model), torch.no_grad():
        images = model.decode(codes, one_hot)
    return images


def quantile_grid(n):
    """Return the n * n codes of the map, row by row: every one stands for the same share of the prior.

    -> (n * n, 2): z_1 grows along a row, and the first row has the largest z_2.
    Source: Kingma & Welling 2014, appendix A, figure 4.
    """
    # the middles of n equal parts of the line from 0 to 1, in ascending order: (n,)
    shares = (torch.arange(n) + 0.5) / n
    # the points of N(0, 1) that have these shares below them; torch.special.ndtri is the inverse of Phi: (n,)
    q = torch.special.ndtri(shares)
    # z_1 runs through q along a row; z_2 is constant along a row, and runs through q from its end: (n * n,)
    z_1 = q.repeat(n)
    z_2 = q.flip(0).repeat_interleave(n)
    return torch.stack([z_1, z_2], dim=1)


def lay_out(images, n):
    """Put n * n images side by side, n in a row, without gaps.

    images: (n * n, 1, H, W), row by row -> one picture (n * H, n * W).
    """
    # make_grid puts nrow images in a row, with a border of `padding` pixels, and gives three equal channels
    return make_grid(images, nrow=n, padding=0)[0]


def map_position(encoder, images):
    """Return where images lie on the map: at Phi(mu), in a square of side 1.

    images: (N, C, 32, 32) in [-1, 1] -> (N, D) in [0, 1], on the CPU; the encoder's mode is restored.
    """
    # the posterior means of the images, in eval mode, as encode_all gives them, on the CPU: (N, D)
    mu = encode_all(encoder, images).cpu()
    # the share of N(0, 1) below each number; torch.special.ndtr is Phi: (N, D)
    return torch.special.ndtr(mu)


def by_activity(mu):
    """Return the dimensions, the most active first, and the activity of every dimension.

    mu: (N, D), posterior means -> order: (D,), whole numbers; activity: (D,), in the order of the dimensions.
    Source: Burda et al. 2016, section 5.2.
    """
    # how much each dimension varies over the images: its variance over N: (D,)
    activity = mu.var(dim=0)
    # the indices of the dimensions, sorted by activity, the largest first: (D,)
    order = activity.argsort(descending=True)
    return order, activity


def traverse(code, dim, values):
    """Return copies of a code in which one dimension takes the values, one after another.

    code: (D,); dim: which dimension, from 0; values: (K,) -> (K, D). code itself stays as it is.
    """
    # K copies of code, one a row, each with memory of its own: (K, D)
    codes = code.repeat(len(values), 1)
    # in row k, dimension dim is set to values[k]
    codes[:, dim] = values
    return codes


def attribute_direction(codes, values, labels):
    """Return the direction in which a value grows: a difference within each class, averaged over the classes.

    codes: (N, D); values: (N,), measured on the images; labels: (N,) -> (D,).
    In every class some values must lie above its median.
    Source: Larsen et al. 2016 for the difference of means; White 2016 for why not over all classes.
    """
    directions = []
    for label in labels.unique():
        own_codes, own_values = codes[labels == label], values[labels == label]
        # which of this class's values lie above their median, True or False: (number in the class,)
        high = own_values > own_values.median()
        # from the mean of the other codes of this class to the mean of the high ones: (D,)
        difference = own_codes[high].mean(dim=0) - own_codes[~high].mean(dim=0)
        directions.append(difference)
    # the mean of the differences, every class counts the same: (D,)
    return torch.stack(directions).mean(dim=0)


def pca(codes, k):
    """Return the k directions along which the codes vary most, and the variance along each of them.

    codes: (N, D) -> components: (k, D), of length 1, at right angles; variances: (k,), the largest first.
    The sign of a component is arbitrary.
    Source: Bishop 2006, section 12.1.1.
    """
    # the codes, shifted so that their mean is 0: (N, D)
    centred = codes - codes.mean(dim=0)
    # the sum of the products of every two dimensions over the codes, divided by N - 1: (D, D)
    covariance = centred.T @ centred / (len(codes) - 1)
    # the eigenvalues in *ascending* order, (D,), and the eigenvectors, which are the *columns* of (D, D)
    values, vectors = torch.linalg.eigh(covariance)
    # the eigenvectors of the k largest eigenvalues, as rows, and these eigenvalues, both in descending order:
    # (k, D) and (k,)
    components = vectors.T.flip(0)[:k]
    variances = values.flip(0)[:k]
    return components, variances
