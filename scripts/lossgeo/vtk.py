"""Surfaces as files for ParaView."""

from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np


def write_structured_grid(
    path: Path | str,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    point_data: Mapping[str, np.ndarray],
) -> Path:
    """A surface z (A, B) over x (A,) and y (B,) as a VTK XML structured grid.

    `point_data` are arrays (A, B) that the points carry. Numbers are written as decimal text that
    reads back as the same float64. Where z is not finite the point lies at 0, and its data say
    so. Returns the path; raises ValueError for any other suffix than .vts, by which ParaView
    knows the format.
    """
    path = Path(path)
    if path.suffix != ".vts":
        raise ValueError(f"the file is {str(path)!r}, expected a name that ends in .vts")
    height = np.where(np.isfinite(z), z, 0.0)
    along, across = np.meshgrid(x, y, indexing="ij")
    points = np.stack([along, across, height], axis=2)
    extent = f"0 {len(x) - 1} 0 {len(y) - 1} 0 0"
    data = "\n".join(_array(name, values) for name, values in point_data.items())
    path.write_text(
        f"""<?xml version="1.0"?>
<VTKFile type="StructuredGrid" version="1.0" byte_order="LittleEndian" header_type="UInt64">
<StructuredGrid WholeExtent="{extent}">
<Piece Extent="{extent}">
<PointData Scalars={quoteattr(next(iter(point_data), ""))}>
{data}
</PointData>
<Points>
{_array("points", points, components=3)}
</Points>
</Piece>
</StructuredGrid>
</VTKFile>
"""
    )
    return path


def _array(name: str, values: np.ndarray, components: int = 1) -> str:
    """A DataArray of values (A, B) or (A, B, components), the first axis fastest."""
    rows = np.swapaxes(np.asarray(values, dtype=np.float64), 0, 1).reshape(-1, components)
    lines = "\n".join(" ".join(map(repr, row)) for row in rows.tolist())
    return (
        f'<DataArray type="Float64" Name={quoteattr(name)} NumberOfComponents="{components}" '
        f'format="ascii">\n{lines}\n</DataArray>'
    )
