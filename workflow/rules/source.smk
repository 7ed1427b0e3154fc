# Where the whole of this workflow is: its scripts import each other, which takes files in a folder.

import os
import sys
import tarfile
import tempfile
from pathlib import Path

from snakemake.sourcecache import HostingProviderFile, LocalGitFile, LocalSourceFile


def get_clone(basedir):
    """The folder of a clone, by that of `workflow/Snakefile`.

    Of a module from github(...), gitlab(...) or gitfile(...), at a tag, commit or branch, it is
    unpacked once, into .snakemake of the working directory.
    """
    if isinstance(basedir, LocalSourceFile):
        return Path(basedir).parent
    if isinstance(basedir, HostingProviderFile):
        repository = basedir.hosted_repo.repo
    elif isinstance(basedir, LocalGitFile):
        import git

        repository = git.Repo(basedir.repo_path)
    else:
        sys.exit(
            f"module: found the snakefile in {basedir}, expected a path, github(...) or gitlab(...)"
        )
    commit = repository.commit(basedir.ref).hexsha
    folder = Path(".snakemake", "lossgeo", "source", commit).absolute()
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
            archive = Path(beside, "archive.tar")
            with open(archive, "wb") as file:
                repository.archive(file, commit)
            with tarfile.open(archive) as file:
                file.extractall(Path(beside, commit), filter="data")
            if not folder.is_dir():
                os.replace(Path(beside, commit), folder)
    return folder
