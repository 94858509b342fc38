"""``vaes fit-prior``, and the option of other commands that says which prior codes are drawn from."""

from vaes.cli.guard import rank
from vaes.cli.parser import MOST_IMAGES, SEEDS, Parser, Read, of_a_run, whole

__all__ = ["KINDS", "fit_prior", "options", "prior"]

KINDS = ("gmm", "flow", "two_stage", "autoregressive", "flow_matching")

EPILOG = (
    "gmm: a mixture of Gaussians by EM; flow: a normalizing flow by maximum likelihood; two_stage: a second VAE of the "
    "codes, whose density is known by a bound alone; autoregressive: a causal transformer over the indices of "
    "quantized codes (of vq_vae and its kin); flow_matching: a network that carries noise to codes, grids (a U-Net) or "
    "flat. It goes to prior-KIND.safetensors beside the weights. Likelihoods and "
    "bounds stay with the model's own prior. Keys of the data section can be given too: --data.root elsewhere"
)


def prior(parser: Parser, meaning: str) -> None:
    """``--prior``."""
    parser.add_argument("--prior", choices=("own", "fitted", *KINDS), metavar="own|fitted|KIND", help=meaning)


def options(parser: Parser) -> Parser:
    """The options of ``vaes fit-prior``."""
    of_a_run(parser)
    parser.add_argument("--kind", choices=KINDS, help="(default: what the run's method asks for, else gmm)")
    parser.add_argument("--components", type=whole(1, 10_000), help="of gmm (default: 10)")
    parser.add_argument("--flow", choices=("realnvp", "maf"), help="of flow (default: realnvp)")
    parser.add_argument(
        "--width",
        type=whole(1, 100_000),
        help="of hidden layers (default: two_stage, maf and flow_matching of flat codes 256, realnvp and "
        "autoregressive 128, flow_matching of grids 64)",
    )
    parser.add_argument(
        "--steps", type=whole(1, 10_000_000), help="at most (default: 500 of EM, 2,000 of flow_matching, else 5,000)"
    )
    parser.add_argument(
        "--solver_steps", type=whole(1, 10_000), help="of flow_matching, in which noise is carried (default: 20)"
    )
    parser.add_argument(
        "--n_images",
        type=whole(10, MOST_IMAGES),
        default=100_000,
        help="of the training split, at random, at most (default: 100,000)",
    )
    parser.add_argument("--seed", type=whole(0, SEEDS), default=0)
    parser.epilog = EPILOG
    return parser


def fit_prior(read: Read) -> None:
    """What ``vaes fit-prior`` does, its arguments read."""
    found = read.options
    if rank():
        return

    from vaes.commands import run_fit_prior  # torch starts here

    given = {name: getattr(found, name) for name in ("components", "flow", "width", "steps", "solver_steps")}
    run_fit_prior(
        found.run,
        found.kind,
        given,
        found.seed,
        found.n_images,
        found.checkpoint,
        found.device,
        found.imports,
        read.keys,
    )
