"""``anamorph register``, from two files to a folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from anamorph.data.files import read
from anamorph.data.transform_files import read_transform
from tests.cli.conftest import SHIFT, Anamorph, Pair
