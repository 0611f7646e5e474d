"""Made-up patients whose true alignment, labels and landmarks are known."""

from anamorph.data.phantoms.abdominal_scans import abdomen as abdomen
from anamorph.data.phantoms.deformation import random_diffeomorphism as random_diffeomorphism
from anamorph.data.phantoms.pair import PhantomPair as PhantomPair
