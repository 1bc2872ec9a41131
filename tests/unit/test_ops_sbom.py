"""The list of everything in an image."""

import json
from pathlib import Path

from controller.ops.appliance.inventory import list_files
from controller.ops.appliance.sbom import Inventory, Part, file_list, read_distributions, read_packages, write_sbom

STATUS = """Package: zlib1g
Status: install ok installed
Architecture: amd64
Source: zlib (1:1.2)
Version: 1:1.3-1
Description: compression
 Package: not this one

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: curl
Status: install ok installed
Architecture: amd64
Version: 8.1+dfsg-2
"""


def test_packages_are_read_from_dpkgs_list() -> None:
    """What was removed is not listed; continued lines say nothing."""
    found = list(read_packages(STATUS, where="system"))

    assert ["zlib1g", "curl"] == [part.name for part in found]
    assert "zlib" == found[0].source
    assert "pkg:deb/debian/zlib1g@1%3A1.3-1?arch=amd64" == found[0].url
    assert "pkg:deb/debian/curl@8.1%2Bdfsg-2?arch=amd64" == found[1].url


def test_pythons_packages_are_read_from_their_folders() -> None:
    """Names are written as the index writes them; other folders are passed over."""
    found = list(read_distributions(["/x/pydantic_core-2.1.dist-info", "/x/Rich-13.9.dist-info", "/x/odd.dist-info"], where="c"))

    assert [("pydantic-core", "2.1"), ("rich", "13.9")] == [(part.name, part.version) for part in found]
    assert "pkg:pypi/rich@13.9" == found[1].url


def test_the_list_is_sorted_whole_and_the_same_each_time() -> None:
    """Nothing is listed twice, and the order of finding does not matter."""
    parts = (*read_packages(STATUS, where="system"), Part(kind="generic", name="x", version="1", sha256="ab", where="llama-cpp"))
    first, again = (
        write_sbom(Inventory(name="image", version="1", parts=found), made_s=0) for found in (parts, (*reversed(parts), parts[0]))
    )
    content = json.loads(first)

    assert first == again
    assert ("CycloneDX", "1.6", "1970-01-01T00:00:00Z") == (
        content["bomFormat"],
        content["specVersion"],
        content["metadata"]["timestamp"],
    )
    assert ["curl", "zlib1g", "x"] == [component["name"] for component in content["components"]]
    assert [{"alg": "SHA-256", "content": "ab"}] == content["components"][-1]["hashes"]
    assert 3 == len({component["bom-ref"] for component in content["components"]})


def test_another_content_is_another_list() -> None:
    """The serial number tells two lists apart."""
    serials = {
        json.loads(write_sbom(Inventory(name="image", version=version, parts=()), made_s=0))["serialNumber"] for version in "12"
    }

    assert 2 == len(serials)


def test_files_are_listed_with_kind_mode_and_owner(tmp_path: Path) -> None:
    """Two builds agree if these lines do: names, kinds, rights; not times."""
    (tmp_path / "b").mkdir(mode=0o755)
    (tmp_path / "b" / "run").touch(mode=0o640)
    (tmp_path / "a").symlink_to("b/run")

    lines = list_files(tmp_path).splitlines()

    assert ["/a", "/b", "/b/run"] == [line.split()[-1] for line in lines]
    assert lines[0].startswith("lrwxrwxrwx ")
    assert lines[2].startswith("-rw-r----- ")
    assert "x /a\ny /b\n" == file_list([("/b", "y"), ("/a", "x")])
