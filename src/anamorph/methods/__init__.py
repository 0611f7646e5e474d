"""Methods, one paper each."""

from anamorph.methods.atlas_istn import AtlasISTN
from anamorph.methods.base import Method
from anamorph.methods.biregnet import BiRegNet
from anamorph.methods.cocyclereg import CoCycleReg
from anamorph.methods.cyclegan import CycleGAN
from anamorph.methods.dynunet import DynUNet
from anamorph.methods.lapirn import LapIRN
from anamorph.methods.macjnet import MacJNet
from anamorph.methods.nemar import NeMAR
from anamorph.methods.patch_simnet import PatchSimNet
from anamorph.methods.sepcyclereg import SepCycleReg
from anamorph.methods.simnet import SimNet
from anamorph.methods.unet import UNet
from anamorph.methods.vmind import VMIND
from anamorph.methods.voxelmorph import VoxelMorph

METHODS: dict[str, type[Method]] = {
    "voxelmorph": VoxelMorph,
    "lapirn": LapIRN,
    "unet": UNet,
    "dynunet": DynUNet,
    "atlas-istn": AtlasISTN,
    "macjnet": MacJNet,
    "biregnet": BiRegNet,
    "simnet": SimNet,
    "patch-simnet": PatchSimNet,
    "cocyclereg": CoCycleReg,
    "sepcyclereg": SepCycleReg,
    "nemar": NeMAR,
    "cyclegan": CycleGAN,
    "vmind": VMIND,
}
"""Name on the command line -> method."""
