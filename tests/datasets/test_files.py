import pytest
from PIL import Image

from okng.errors import OkngError
from okng.inspection.files import IMAGE_SUFFIXES, find_images, subfolders


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


@pytest.mark.parametrize("list_them", [find_images, subfolders])
def test_a_folder_that_cannot_be_read_is_one_clear_error(tmp_path, list_them):
    with pytest.raises(OkngError, match=r"cannot read folder .*missing"):
        list_them(tmp_path / "missing")
