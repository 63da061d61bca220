import json
import os
import warnings

import pytest
from PIL import Image

from okng.errors import OkngError, OkngWarning
from okng.inspection.outputs import csv_line
from okng.inspection.reading import files
from okng.inspection.reading.files import IMAGE_SUFFIXES, OTHER_SUFFIXES, find_images, read_list, subfolders


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder):
    return [path.relative_to(folder).as_posix() for path in find_images(folder)]


def test_natural_order_folder_by_folder(tmp_path):
    touch(tmp_path, "10.png", "2.png", "b/1.png", "a10/1.png", "a2/9.png", "a2/10.png", "01.png", "1.png")
    assert found(tmp_path) == [
        "01.png",
        "1.png",
        "2.png",
        "10.png",
        "a2/9.png",
        "a2/10.png",
        "a10/1.png",
        "b/1.png",
    ]


def test_only_images_that_are_not_hidden(tmp_path):
    touch(tmp_path, "a.PNG", "b.jpeg", "notes.txt", "Thumbs.db", "._a.png", ".cache/c.png", "d.png.part", "png")
    assert found(tmp_path) == ["a.PNG", "b.jpeg"]


def test_linked_folders_are_followed_once(tmp_path):
    touch(tmp_path, "elsewhere/1.png", "set/2.png")
    (tmp_path / "set/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/loop").symlink_to(tmp_path / "set")
    assert found(tmp_path / "set") == ["2.png", "link/1.png"]


def test_pillow_knows_every_suffix():
    assert set(IMAGE_SUFFIXES) <= set(Image.registered_extensions())
    assert not set(IMAGE_SUFFIXES) & OTHER_SUFFIXES


@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".hif"])
def test_what_reads_files_of_telephones_is_named(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(files, "IMAGE_SUFFIXES", (".png",))  # as without the plug-in
    monkeypatch.setattr(files, "OTHER_SUFFIXES", (suffix.lower(),))
    (tmp_path / f"a{suffix}").touch()
    with pytest.warns(OkngWarning, match="save them as PNG; .heic is read after: pip install pi-heif"):
        assert files.find_images(tmp_path) == []


def test_files_of_other_formats_are_counted_and_named(tmp_path):
    touch(tmp_path, "1.png", "a.cr2", "b/c.CR2", "b/d.psd", "notes.txt", ".hidden.psd")
    with pytest.warns(OkngWarning, match=r"3 files of formats okng doesn't read left out of .* \(\.cr2 2, \.psd 1\)"):
        assert found(tmp_path) == ["1.png"]


def test_a_folder_of_images_alone_is_no_cause_for_words(tmp_path):
    touch(tmp_path, "1.png", "notes.txt", "Thumbs.db")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found(tmp_path) == ["1.png"]


@pytest.fixture
def locked(monkeypatch):
    """Folders called "locked" can't be read, by nobody: root could read what permissions forbid."""
    scan = os.scandir

    def scandir(folder):
        if os.fspath(folder).endswith("locked"):
            raise PermissionError(13, "Permission denied", os.fspath(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scandir)


def test_one_unreadable_folder_is_named_and_left_out(tmp_path, locked):
    touch(tmp_path, "a/1.png", "locked/2.png", "z/3.png")
    with pytest.warns(OkngWarning, match=r"skipped: cannot read folder .*locked \(Permission denied\)"):
        assert found(tmp_path) == ["a/1.png", "z/3.png"]
    for folder, strict in ((tmp_path, True), (tmp_path / "locked", False)):
        with pytest.raises(OkngError, match=r"cannot read folder .*locked"):
            find_images(folder, strict)


def test_pipes_are_left_out(tmp_path):
    touch(tmp_path, "1.png")
    os.mkfifo(tmp_path / "2.png")
    assert found(tmp_path) == ["1.png"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "1.png\n\nb/2.png\r\n"),
        ("list.csv", "path,score\n1.png,3\nb/2.png,4\n"),
        ("list.json", json.dumps(["1.png", "b/2.png"])),
    ],
)
def test_lists_of_images(tmp_path, name, text, monkeypatch):
    touch(tmp_path, "1.png", "b/2.png")
    (tmp_path / name).write_text(text)
    assert read_list(tmp_path / name) == [tmp_path / "1.png", tmp_path / "b/2.png"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "image,score\n1.png,3\n"),
        ("list.csv", 'path\n"' + 200_000 * "1.png\n"),  # a quotation mark that nothing ends
        ("list.json", '{"a": 3}'),
        ("list.json", "[1, 2]"),
        ("list.json", "["),
    ],
)
def test_what_is_no_list_of_images_says_what_is(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(OkngError, match=r"list.* is no list of images; give images, folders, a \.txt with one path"):
        read_list(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text", "encoding"),
    [("list.txt", "부품.png", "cp949"), ("list.csv", "path\n부품.png", "cp949"), ("list.txt", "1.png", "utf-16")],
)
def test_a_list_in_another_encoding_says_which_one_it_takes(tmp_path, name, text, encoding):
    """Excel and Notepad write such files, which were called no lists."""
    (tmp_path / name).write_bytes(text.encode(encoding))
    with pytest.raises(OkngError, match=r"list.* is no text in UTF-8; save the list as UTF-8, in Excel as CSV UTF-8"):
        read_list(tmp_path / name)


def test_a_table_of_okng_names_the_images_it_was_made_of(tmp_path):
    """A name of two lines was read as one line, and the image was left out as one that isn't there."""
    names = ["new\nline.png", 'a,"b".png', "next\u2028line.png", "form\x0cfeed.png"]
    touch(tmp_path, *names)
    (tmp_path / "found.csv").write_bytes(b"".join(csv_line([name, 3.5]) for name in ["path", *names]))
    assert read_list(tmp_path / "found.csv") == [tmp_path / name for name in names]
    (tmp_path / "found.txt").write_text("\r\n".join(names[1:]), newline="")
    assert read_list(tmp_path / "found.txt") == [tmp_path / name for name in names[1:]]


def test_a_text_that_names_no_file_is_no_list(tmp_path):
    (tmp_path / "notes.txt").write_text("taken on Tuesday\n")
    with pytest.raises(
        OkngError, match=r"notes\.txt names no file that is there; its paths are relative to its folder"
    ):
        read_list(tmp_path / "notes.txt")


@pytest.mark.parametrize("list_them", [find_images, subfolders])
def test_a_folder_that_cannot_be_read_is_one_clear_error(tmp_path, list_them):
    with pytest.raises(OkngError, match=r"cannot read folder .*missing"):
        list_them(tmp_path / "missing")


def test_a_list_names_images_in_storage_and_no_other_addresses(tmp_path):
    (tmp_path / "good.txt").write_text("https://plant/1.png?sig=a\ns3://plant/scan.tif[2]")
    assert read_list(tmp_path / "good.txt") == ["https://plant/1.png?sig=a", "s3://plant/scan.tif[2]"]
    (tmp_path / "bad.txt").write_text("http://10.0.0.1/latest/credentials?key=hush")
    with pytest.raises(OkngError, match="credentials, which") as told:
        read_list(tmp_path / "bad.txt")
    assert "hush" not in str(told.value)
