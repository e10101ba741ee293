"""Parquet and Arrow files that are not what they say: buffers that decode to gigabytes, values that need no space,
offsets beyond their buffers. Each is one line, and the process that asked reads nothing of it."""

import base64
import lzma
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from refusals import assert_refused
from test_formats import ROWS, pairs, saved
from waiting import HANG

from riyaz.data import formats, parquet, parquet_worker

# A Parquet file of 24 KB, packed: one row whose text has 760 MiB, and a footer that says that the column has 100 bytes
LYING = (
    "T>t<81poj4|NsC0{{ScuMu<$3Sa$+IRaH=$%#^yA*h@eg8dy-+@U99qRna0gsjd8Ef5S}9FOPhGsEnhSn^;?}D<EDbm>z3oa@d_gankHG8^HG$"
    "`|BHDD6`a-YEc#gu$P5PJ0nh6aCC#q0WbZwkXCH4FKvyJoH0XJX$SfNs>fY^xOLJ3>*thz%(qY28;ny@=Zx{jT_w49A+{AQc=MLB(=LF;Kg1;)"
    "dE7fo1PUz)Hnz=Pox>E$RXNaC9us#e>4r}d|JuLf?_JonE7+s&{)J?k`^gS)BVf<hzW|Nxa`LmFd?Wi|9}VLds4)=o+p-Y#I!3>_G3=@@8^@dF"
    "f7jb4b!u<_=d`o{"
)
# Arrow files of 100,000,000 zeros in one compressed buffer, packed: a stream (zstd) and a file (lz4)
ZEROS = {
    "stream": (
        "T>t<81poj4|NsC0{{VmJoB$dD5Juyt5-Fi4-}TCn8ubyU=AJT^+PZ$|)CH|>ZB4VHmXb;|2_dDsHvpi{dSjh~IT~D?>Avt$mau5-@hbA(M"
        "gS!|Q7`1=Aytod$E*6(bys(~bll$kfE6pV?mb3vS8YNpRu}zbtcn+E?e>x7Q#3d;T7k+_#!_mksiPoTVlmuvK5hRQXbd8k5R~ES<wYxL9E"
        "fr@wb5YMPlD+b=EvUc|HOY|kY!k!U=5ULgC(A(^{5LA;qkI^bI<z@#40E^v>c+dVj!d^BRw%h(>SF4Q6hyYUcnDu>!teAS#A"
    ),
    "file": (
        "T>t<81poj4|NsC0{{SGAte#muv3?t`l^l4ShfC_%eX-@)_;e)Op2&(mEUiSiQbgC`HWn`U>GX2<zHUczY}KD|`k3mSW}VI$1cGDJI_lMi>"
        "Q$)1qC;M7{{O!&A_8FpQBA_AP<B8Bsv^`sRfe2O+>rY5&@-Xr14dyuP0-=UJYJMV{$X8cFFVqJ1GQ~LXTuy<r-JA)ntwPq6?fiF!xDf#(|"
        "+blS$p0sY>>7^1kh}|FzYRydNdJZ{1QCa5qbIQXN?34u?G<hy?;+e%hf^#2?<eLYKhbTKzZN36weY&EYCfgN0_647k;ZqqnAlXare#C%>g"
        "+_%wwRZReUyKSrEH^sU&L>2AEBl{n)S7kPpNqQ~33fHZcXIu<mcca7{-H(UB3VtzaFx&ao#LTv>+cW>Q$b>2|DH<mFoh2>Hj_t^E5^D|F2"
        "sTOdOD-BUgIDP##dfXgau-?cmN#Jw(Gst-O(W<rn?4*w97_;Gky_zTVdl_*9Jsr-E2`<gH=R=|&i^MirFWyB>@`1O%CF$JZt?r*_xO-BsT"
        "krAq`U>&;7u_qW@S%&FmQdqv}cC1<C<y!>^`N!I={QFWXbj==HAVT@wQ$6@8WC=Tf%PMT&wL9>{y)Iv>4?as~LXZ;<{}7Y-ad=ty3(fzPC"
        "`J#d{CwW~nlLU_z>kIVgMq+h#3fVs^^rC)1*Nd=Z^3X)M-0)C5vr|V9lFl3Cm38=hUsQfSib3YtXbscTLlRD$J(v@`%)`(%^q7ILiycOJ@"
        "_eP2|IwxDs11iJMhH4E?=q-K1*gokP{C75R>?Ecv<)h&Ht4sMh~g{eBS$-FfLZWkA?Gtfxu<NB~$qIkv1^}rLgXA!EjAS4AGGhs;yuhy3V"
        "mD7+hI~>1I+`zUg+XS>)wg1qk`a+O7QiQY&=L9$O$n_r=z;Y?G!G2x@YUQ0EZNg_Qx>iSS@zdW0s@8}Z2kl?8G&4?R4p5TDPK+w86^^a5U"
        "J)c*d}8XA*Eo&WyGUu^"
    ),
}


def unpacked(path: Path, packed: str) -> Path:
    """A file of this content."""
    path.write_bytes(lzma.decompress(base64.b85decode(packed)))
    return path


def arrow_file(path: Path, *columns: Any, compression: str | None = None) -> Path:
    """One record batch with the columns text and label, or one of them, as a file."""
    batch = pa.RecordBatch.from_arrays(list(columns), names=["text", "label"][: len(columns)])
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return path


@pytest.mark.parametrize("kind", ZEROS)
def test_compressed_buffers_are_bounded_before_they_are_decoded(kind, tmp_path, monkeypatch):
    path = unpacked(tmp_path / "a.arrow", ZEROS[kind])
    monkeypatch.setattr(parquet, "batches", None)  # nothing is read in this process
    with assert_refused(f"a.arrow: decodes to more than {1024 + 2 * path.stat().st_size // 2**20:,} MiB at once"):
        parquet.arrow_rows(path, None)


@pytest.mark.parametrize("compression", ["zstd", "lz4", None])
def test_compressed_data_sets_are_read(compression, tmp_path):
    folder = saved(tmp_path / "s", ROWS)
    for part in range(2):
        table = pa.Table.from_pylist(ROWS[part::2])
        arrow_file(folder / f"data-{part:05}-of-00002.arrow", *table.to_batches()[0].columns, compression=compression)
    (folder / "dataset_info.json").unlink()
    (rows, columns), again = parquet.arrow_rows(folder / "data-00000-of-00002.arrow", None), formats.load(folder)
    assert columns == ("text", "label") and [tuple(row.values()) for _, row in rows] == [
        tuple(r.values()) for r in ROWS[::2]
    ]
    assert len(pairs(again)) == len(ROWS)


def test_a_parquet_file_that_lies_about_its_size_is_bounded(tmp_path, monkeypatch):
    path = unpacked(tmp_path / "a.parquet", LYING)
    about = pa.parquet.read_metadata(path)
    assert about.row_group(0).column(0).total_uncompressed_size == 100 and about.num_rows == 1
    monkeypatch.setattr(parquet, "batches", None)
    with assert_refused("a.parquet: decodes to more than 1,024 MiB at once; reading stopped; split it"):
        formats.load(path)


def test_values_that_take_no_space_are_counted(tmp_path):
    path = arrow_file(tmp_path / "a.arrow", pa.nulls(2**31 - 1))
    with assert_refused("a.arrow: has more than 1,000,000 rows"):
        parquet.arrow_rows(path, None)
    endless = pa.ListArray.from_arrays(pa.array([0, 2**31 - 2], pa.int32()), pa.nulls(2**31 - 2))
    with assert_refused("a.arrow: cannot be read (more than 50,000,000 values)"):
        parquet.arrow_rows(arrow_file(path, endless), None)
    assert path.stat().st_size < 500


@pytest.mark.parametrize("offsets", [(0, 3, 2**30), (0, 2**30, 5), (-5, 3, 5), (0, 5, 3)])
def test_offsets_beyond_the_text_are_refused(offsets, tmp_path):
    path = arrow_file(tmp_path / "a.arrow", pa.array(["abc", "de"]), pa.array([["x"], ["y", "z"]]))
    whole = path.read_bytes()
    assert whole.count(struct.pack("<3i", 0, 3, 5)) == 1 and whole.count(struct.pack("<3i", 0, 1, 3)) == 1
    path.write_bytes(whole.replace(struct.pack("<3i", 0, 3, 5), struct.pack("<3i", *offsets)))
    with assert_refused("a.arrow: cannot be read ("):
        parquet.arrow_rows(path, None)
    path.write_bytes(whole.replace(struct.pack("<3i", 0, 1, 3), struct.pack("<3i", *offsets)))
    with assert_refused("a.arrow: cannot be read ("):
        parquet.arrow_rows(path, None)


def test_a_file_that_ends_its_reader_is_one_line(tmp_path, monkeypatch):
    path = arrow_file(tmp_path / "a.arrow", pa.array(["abc"]))
    for what, line, seconds in (
        ("kill -ABRT $$", "a.arrow: is damaged: reading it crashes the reader; write or download it again", HANG),
        ("kill -XCPU $$", "a.arrow: does not decode in time; split it", HANG),
        ("exec sleep 9999", "a.arrow: does not decode in time; split it", 0.02),
    ):
        monkeypatch.setattr(parquet_worker, "SECONDS", seconds)
        monkeypatch.setattr(parquet, "module_command", lambda *_, what=what: (["sh", "-c", what], {}))
        with assert_refused(line):
            parquet.arrow_rows(path, None)
