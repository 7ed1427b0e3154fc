from lossgeo.face import Objective as Objective
from lossgeo.version import __version__ as __version__
