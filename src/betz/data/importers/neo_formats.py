"""The formats that Betz imports: how a file is recognised, what it needs, and whether a real file was at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Format:
    """One format.

    Args:
        name: of the format or its maker.
        suffixes: of its files; of a folder: patterns of a file that lies in it.
        folder: whether a recording is a folder.
        extra: which extra of Betz reads it; empty = none.
        reader: class in ``neo.rawio``; empty = Betz's own.
        tested: on what it was tried; ``"untested"`` = no real file was at hand.
        note: what to know.
    """

    name: str
    suffixes: tuple[str, ...]
    extra: str = "io"
    folder: bool = False
    reader: str = ""
    tested: str = "untested"
    note: str = ""


REAL = "real files"
VENDORS = (
    Format("Blackrock", (".nev", *(f".ns{n}" for n in range(1, 7))), reader="BlackrockRawIO", tested=REAL,
           note=".nev and .nsX of one name together"),
    Format("Ripple", (".nev",), reader="BlackrockRawIO", tested="a real file without spikes", note="Trellis"),
    Format("Plexon", (".plx",), reader="PlexonRawIO", tested=REAL),
    Format("NeuroExplorer", (".nex",), reader="NeuroExplorerRawIO", tested=REAL),
    Format("Intan", (".rhd", ".rhs"), reader="IntanRawIO", note="broadband: needs broadband"),
    Format("SpikeGadgets", (".rec",), reader="SpikeGadgetsRawIO", note="broadband: needs broadband"),
    Format("TDT", ("*.tbk", "*.Tbk"), folder=True, reader="TdtRawIO", note="the folder of a block"),
    Format("Open Ephys binary", ("structure.oebin", "*/structure.oebin", "*/*/structure.oebin",
                                 "*/*/*/structure.oebin"), folder=True, reader="OpenEphysBinaryRawIO",
           tested="made files", note="broadband of all processors as one session; sorted spikes are not read"),
    Format("Open Ephys", ("*.continuous",), folder=True, reader="OpenEphysRawIO"),
    Format("Neuralynx", ("*.ncs", "*.nse", "*.ntt"), folder=True, reader="NeuralynxRawIO"),
)  # fmt: skip
OWN = (
    Format("NumPy arrays", (".npz",), extra="", tested=REAL, note="known layouts, or a mapping"),
    Format("MATLAB 5 to 7.3", (".mat",), extra="", tested=REAL, note="known layouts, or a mapping"),
    Format("table", (".csv",), extra="", tested="made files", note="a mapping"),
    Format("NWB", (".nwb",), extra="nwb", tested="a real file without behavior", note="--choose asks what to import"),
    Format("FALCON H1, H2, M1, M2", (".nwb",), extra="nwb", tested="made files", note="recognised by their names"),
)
FORMATS = OWN + VENDORS
NOT_READ = {
    ".pl2": ("Plexon .pl2 files can be read by Plexon's own library only.", "save it as .plx, or export NWB"),
    ".nex5": (".nex5 files are not known.", "save it as .nex (version 1) in NeuroExplorer, or export NWB"),
    ".smr": ("Spike2 .smr files are not known.", "export it as .mat or NWB"),
    ".smrx": ("Spike2 .smrx files are not known.", "export it as .mat or NWB"),
    ".ccf": (".ccf files hold settings, no recording.", "import the .nev of the same name"),
}


def vendor_of(path: Path) -> Format | None:
    """The vendor's format of a file or folder; None = none of them."""
    if path.is_dir():
        for known in VENDORS:
            if known.folder and any(next(path.glob(pattern), None) for pattern in known.suffixes):
                return known
        return None
    suffix = path.suffix.lower()
    for known in VENDORS:
        if not known.folder and suffix in known.suffixes:
            return known
    return None


def rows() -> list[dict[str, Any]]:
    """Every format as a row for people: name, what is given, extra, whether tested, note."""
    return [
        {
            "format": known.name,
            "given": f"folder with {known.suffixes[0]}" if known.folder else " ".join(known.suffixes),
            "extra": known.extra,
            "tested": known.tested,
            "note": known.note,
        }
        for known in FORMATS
    ]
