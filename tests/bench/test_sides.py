"""What can be compared is found or built, once, and what cannot is told."""

import sys
from pathlib import Path

import pytest
from geoact.bench.gate import sides
from geoact.bench.gate.sides import Build, SideError, find
from support import toy_project


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    toy_project.commit(folder, 0.001, "v1")
    toy_project.commit(folder, 0.002, "v2")
    return folder


@pytest.fixture
def build(tmp_path):
    return Build("none", "src", cache=tmp_path / "cache")


def seconds(side):
    (path,) = side.paths
    return float((Path(path) / "sleeper.py").read_text().split("SECONDS = ")[1].split()[0])


def test_a_revision_is_checked_out_as_it_was(project, build):
    for name, expected in (("v1", 0.001), ("HEAD~1", 0.001), ("v2", 0.002)):
        side = find(name, project, build)
        assert seconds(side) == expected
        assert side.commit == toy_project.git(project, "rev-parse", name)
        assert side.python == sys.executable


def test_a_revision_is_built_once(project, build):
    told = []
    first = find("v1", project, build, told.append)
    assert find("v1", project, build, told.append).paths == first.paths
    assert told == ["building v1"]
    assert find("v2", project, build, told.append).paths != first.paths


def test_the_working_tree_is_taken_as_it_is_with_new_files_and_without_ignored_ones(project, build):
    (project / ".gitignore").write_text("ignored.py\n")
    (project / "src" / "ignored.py").write_text("")
    (project / "src" / "new.py").write_text("x = 1\n")
    toy_project.write(project, 0.003)
    side = find(".", project, build)
    assert seconds(side) == 0.003
    found = {path.name for path in Path(side.paths[0]).iterdir()}
    assert found == {"sleeper.py", "new.py"}
    toy_project.write(project, 0.004)
    assert seconds(find(".", project, build)) == 0.004
    assert seconds(side) == 0.003


def test_a_build_of_pip_is_installed_without_its_dependencies(project, tmp_path):
    """With a build backend that is part of the project, so that nothing has to be downloaded."""
    (project / "backend.py").write_text(
        "import pathlib, zipfile\n"
        "def build_wheel(folder, config_settings=None, metadata_directory=None):\n"
        "    name = 'sleeper-1-py3-none-any.whl'\n"
        "    info = 'sleeper-1.dist-info/'\n"
        "    with zipfile.ZipFile(pathlib.Path(folder) / name, 'w') as wheel:\n"
        "        wheel.write('src/sleeper.py', 'sleeper.py')\n"
        "        wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: sleeper\\nVersion: 1\\n'\n"
        "                       'Requires-Dist: no-such-package-anywhere\\n')\n"
        "        lines = 'Wheel-Version: 1.0', 'Generator: t', 'Root-Is-Purelib: true', 'Tag: py3-none-any', ''\n"
        "        wheel.writestr(info + 'WHEEL', chr(10).join(lines))\n"
        "        wheel.writestr(info + 'WHEEL', chr(10).join(lines))\n"
        "        wheel.writestr(info + 'RECORD', '')\n"
        "    return name\n"
    )
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(
        text + '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    build = Build("pip", isolated=False, cache=tmp_path / "cache")
    side = find(".", project, build)
    assert seconds(side) == 0.002
    assert not (Path(side.paths[0]).parent / "source").exists()


def test_a_build_that_fails_says_how_and_leaves_nothing(project, tmp_path):
    text = "[build-system]\nrequires = []\nbuild-backend = 'no_backend'\nbackend-path = ['.']\n"
    (project / "pyproject.toml").write_text(text)
    build = Build("pip", isolated=False, cache=tmp_path / "cache")
    with pytest.raises(SideError, match=r"(?s)\. cannot be built by pip \(exit status \d\):.*no_backend"):
        find(".", project, build)
    assert not list((tmp_path / "cache").iterdir())


def test_what_is_installed_needs_no_folder(project, build):
    assert find("installed", project, build) == sides.Side("installed")


def test_an_interpreter_an_environment_and_a_folder_are_sides(project, build, tmp_path):
    assert find(sys.executable, project, build).python == sys.executable
    environment = tmp_path / "venv"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to(sys.executable)
    assert find(str(environment), project, build).python == str(environment / "bin" / "python")
    assert find(str(project / "src"), project, build).paths == (str(project / "src"),)


@pytest.mark.parametrize("name", ["no-such-revision", "--version", "v1^{tree}"])
def test_what_is_nothing_is_told(project, build, name):
    with pytest.raises(SideError, match=name.replace("^", r"\^").replace("{", r"\{")):
        find(name, project, build)


def test_a_folder_that_is_no_repository_has_no_working_tree(tmp_path, build):
    with pytest.raises(SideError, match="no git repository"):
        find(".", tmp_path, build)


def test_a_revision_without_the_source_folder_is_told(project, tmp_path):
    with pytest.raises(SideError, match="v1 has no folder lib"):
        find("v1", project, Build("none", "lib", cache=tmp_path / "cache"))


def test_a_build_that_is_no_build_is_refused():
    with pytest.raises(SideError, match="build is 'make'"):
        Build("make")
