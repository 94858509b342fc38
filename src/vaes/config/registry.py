"""The kinds that a configuration can name."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vaes import data, likelihoods, nn, objectives, posteriors, priors, schedules

DATA_OF_PYTHON = "arrays"
"""The source of images that may be given in Python."""

__all__ = [
    "BOUNDS",
    "LIKELIHOODS",
    "NETWORKS",
    "POSTERIORS",
    "PRIORS",
    "SCHEDULES",
    "SOURCES",
    "TERMS",
    "Network",
]


class Network(NamedTuple):
    """An encoder and the decoder that mirrors it; both take the same options."""

    encoder: Callable[..., Any]
    decoder: Callable[..., Any]
    grid: Callable[..., tuple[int, ...]] | None = None
    """``grid(image_shape, z_channels, **options)`` is the shape of a code where codes are grids; None: they are flat.
    A flat network's decoder takes z_dim, a grid's takes z_shape."""


NETWORKS: dict[str, Network] = {
    "autoencoder_kl": Network(nn.KLEncoder, nn.KLDecoder, nn.kl_grid),
    "conv": Network(nn.ConvEncoder, nn.ConvDecoder),
    "gated_conv": Network(nn.GatedConvEncoder, nn.GatedConvDecoder),
    "gated_mlp": Network(nn.GatedMLPEncoder, nn.GatedMLPDecoder),
    "locatello": Network(nn.LocatelloEncoder, nn.LocatelloDecoder),
    "mlp": Network(nn.MLPEncoder, nn.MLPDecoder),
    "resnet": Network(nn.ResNetEncoder, nn.ResNetDecoder),
}

LIKELIHOODS: Mapping[str, Callable[..., likelihoods.Likelihood]] = {
    "bernoulli": likelihoods.Bernoulli,
    "continuous_bernoulli": likelihoods.ContinuousBernoulli,
    "discretised_logistic": likelihoods.DiscretisedLogistic,
    "gaussian": likelihoods.Gaussian,
    "laplace": likelihoods.Laplace,
    "logistic_mixture": likelihoods.LogisticMixture,
    "student_t": likelihoods.StudentT,
}

POSTERIORS: dict[str, Callable[..., posteriors.Posterior]] = {
    "fsq": posteriors.FSQ,
    "full_covariance": posteriors.FullCovariance,
    "gaussian": posteriors.Gaussian,
    "householder": posteriors.Householder,
    "iaf": posteriors.IAF,
    "joint": posteriors.Joint,
    "lfq": posteriors.LFQ,
    "planar": posteriors.Planar,
    "point": posteriors.Point,
    "relaxed_categorical": posteriors.RelaxedCategorical,
    "rvq": posteriors.RVQ,
    "simvq": posteriors.SimVQ,
    "sylvester": posteriors.Sylvester,
    "von_mises_fisher": posteriors.VonMisesFisher,
    "vq": posteriors.VQ,
}

PRIORS: dict[str, Callable[..., priors.Prior]] = {
    "categorical": priors.Categorical,
    "codes": priors.Codes,
    "joint": priors.Joint,
    "maf": priors.MAF,
    "mixture": priors.Mixture,
    "realnvp": priors.RealNVP,
    "sphere": priors.Sphere,
    "standard_normal": priors.StandardNormal,
    "vamp": priors.Vamp,
}

BOUNDS: dict[str, Callable[..., objectives.Bound]] = {
    "ciwae": objectives.CIWAE,
    "elbo": objectives.ELBO,
    "iwae": objectives.IWAE,
    "miwae": objectives.MIWAE,
    "piwae": objectives.PIWAE,
    "reconstruction": objectives.Reconstruction,
}

TERMS: dict[str, Callable[..., objectives.Term]] = {
    "alignment": objectives.terms.Alignment,
    "capacity": objectives.terms.Capacity,
    "code_entropy": objectives.terms.CodeEntropy,
    "codebook": objectives.terms.Codebook,
    "commitment": objectives.terms.Commitment,
    "dip": objectives.terms.DIP,
    "equivariance": objectives.terms.Equivariance,
    "free_bits": objectives.terms.FreeBits,
    "gradient_penalty": objectives.terms.GradientPenalty,
    "image_critic": objectives.terms.ImageCritic,
    "joint_capacity": objectives.terms.JointCapacity,
    "latent_norm": objectives.terms.LatentNorm,
    "mmd": objectives.terms.MMD,
    "ms_ssim": objectives.terms.MSSSIM,
    "mutual_information": objectives.terms.MutualInformation,
    "patch_critic": objectives.terms.PatchCritic,
    "perceptual": objectives.terms.Perceptual,
    "prior_critic": objectives.terms.PriorCritic,
    "sliced_wasserstein": objectives.terms.SlicedWasserstein,
    "total_correlation": objectives.terms.TotalCorrelation,
    "total_correlation_critic": objectives.terms.TotalCorrelationCritic,
    "wavelet": objectives.terms.Wavelet,
}

SCHEDULES: Mapping[str, Callable[..., schedules.Schedule]] = {
    "constant": schedules.Constant,
    "cosine": schedules.Cosine,
    "cyclical": schedules.Cyclical,
    "linear": schedules.Linear,
    "one_cycle": schedules.OneCycle,
    "ramp": schedules.Ramp,
    "sigmoid": schedules.Sigmoid,
}

SOURCES: Mapping[str, Callable[..., data.Splits]] = {
    "arrays": data.array_file,
    "cars3d": data.cars3d,
    "celeba": data.celeba,
    "cifar10": data.cifar10,
    "cifar100": data.cifar100,
    "digits": data.digits,
    "dsprites": data.dsprites,
    "emnist": data.emnist,
    "fashion_mnist": data.fashion_mnist,
    "folder": data.folder,
    "hub": data.hub,
    "kmnist": data.kmnist,
    "mnist": data.mnist,
    "mpi3d": data.mpi3d,
    "numerals": data.numerals,
    "omniglot": data.omniglot,
    "shapes3d": data.shapes3d,
    "smallnorb": data.smallnorb,
    "sprites": data.sprites,
    "svhn": data.svhn,
    "webdataset": data.webdataset,
}
