"""Fetches libtorch from the Python package index; see ../setup-libtorch.sh for the usage.

A wheel is a zip file whose `torch/lib` and `torch/include` are a complete libtorch. The CPU build takes a
subset of it, since the index serves only the CUDA wheel for Linux: its CPU half runs without the CUDA half
once two small NVIDIA libraries, which it names but hardly uses, are there.

Everything is safe to kill: wheels are moved into place by pip when whole, and libtorch is unpacked into a
temporary folder that is renamed last.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

VERSION = "2.13.0"
# Raise it when `unpack` or `finish` change: then libtorch is set up again.
RECIPE = 1
HERE = Path(__file__).resolve().parent
STORE = HERE.parents[1] / ".libtorch"
CURRENT = STORE / "current"
WHEELS = STORE / "wheels"

# Free space at the peak: wheels, pip's cache of them, and what is unpacked.
GIGABYTES = {"cpu": 1.7, "cuda": 9.0}
# What a user without network can do.
OTHER_WAYS = f"or set LIBTORCH to a libtorch {VERSION} that you have"
# Fixed, so that the hash does not depend on the user's Python.
PYTHON_TAG = "3.11"

# Not needed in C++ or Rust.
PYTHON_ONLY = re.compile(r"lib(torch_python|shm|torch_global_deps)\.")
# Not needed without a GPU. `libtorch.so` only ties the CPU and CUDA halves together.
GPU_ONLY = re.compile(r"lib(c10_cuda|torch_cuda|torch_cuda_linalg|torch_nvshmem|caffe2_nvrtc|torch)\.so")
# All that the CPU half loads of NVIDIA's.
NVIDIA_FOR_CPU = re.compile(r"lib(cudart|cupti)\.so")


class SetupError(Exception):
    """Something a person must look at; the text says what to do."""


def main(arguments):
    flavour = wanted_flavour(arguments)
    if own := os.environ.get("LIBTORCH"):
        # Cargo hands its own default on to the processes it starts; that is no wish of the user's.
        if Path(os.path.abspath(own)) != CURRENT:
            return check_own(Path(own), flavour)
    if not is_ready(flavour):
        STORE.mkdir(exist_ok=True)
        with Lock(STORE / "lock"):
            if not is_whole(flavour):
                build(flavour)
            point_current_at(flavour)
    say(f"libtorch {VERSION} ({flavour}) is ready in {shown(CURRENT)}")


def wanted_flavour(arguments):
    if not arguments or arguments == [""]:
        # What an earlier set-up chose; so `make demo` does not undo `make setup TORCH=cuda`.
        return CURRENT.resolve().name if CURRENT.is_symlink() else "cpu"
    if arguments not in (["cpu"], ["cuda"]):
        raise SetupError(f"usage: setup-libtorch.sh [cpu|cuda], got '{' '.join(arguments)}'")
    return arguments[0]


def is_ready(flavour):
    return CURRENT.is_symlink() and CURRENT.resolve() == STORE / flavour and is_whole(flavour)


def is_whole(flavour):
    try:
        return (STORE / flavour / "stamp").read_text() == stamp(flavour)
    except OSError:
        return False


def stamp(flavour):
    return f"recipe {RECIPE}, wheels {sha256(pins_file(flavour))}\n"


def check_own(libtorch, flavour):
    """A libtorch of the user's: never touched, only looked at."""
    version = own_version(libtorch)
    if version != VERSION:
        raise SetupError(
            f"LIBTORCH={libtorch} holds {version or 'no libtorch'}, but the tch crate needs libtorch {VERSION}; "
            "point LIBTORCH at that version, or unset it and run this again to fetch it"
        )
    if flavour == "cuda" and not (libtorch / "lib" / "libtorch_cuda.so").exists():
        raise SetupError(f"LIBTORCH={libtorch} is a CPU build; unset it to fetch the CUDA build")
    say(f"libtorch {VERSION} from LIBTORCH={libtorch}")


def own_version(libtorch):
    try:
        return (libtorch / "build-version").read_text().strip().split("+")[0]
    except OSError:
        pass  # The wheel and distributions' packages have no such file.
    try:
        header = (libtorch / "include/torch/headeronly/version.h").read_text()
    except OSError:
        return None
    numbers = re.findall(r"define TORCH_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", header)
    return ".".join(numbers)


def build(flavour):
    check_platform(flavour)
    pins = read_pins(flavour)
    check_space(flavour)
    # Left by a run that was killed.
    for stale in STORE.glob("tmp-*"):
        shutil.rmtree(stale)
    # In the store and not in /tmp, which is a small memory disk on many machines.
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=STORE) as temporary:
        wheels = [fetch(pin, temporary, f"[{n}/{len(pins)}]") for n, pin in enumerate(pins, 1)]
        unpacked = Path(temporary) / "libtorch"
        for wheel in wheels:
            unpack(wheel, unpacked, flavour)
        finish(unpacked, flavour)
        if (STORE / flavour).exists():
            (STORE / flavour).rename(Path(temporary) / "old")
        unpacked.rename(STORE / flavour)
    if not os.environ.get("KEEP_WHEELS"):
        shutil.rmtree(WHEELS)


def check_platform(flavour):
    """Tried: Linux x86_64. Not tried: Linux aarch64, macOS arm64."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) == ("Darwin", "arm64") and flavour == "cpu":
        return
    if system != "Linux" or machine not in ("x86_64", "aarch64"):
        raise SetupError(
            f"no {flavour} build of libtorch for {system} on {machine} in the Python package index; "
            f"use Linux on x86_64 or aarch64 (CPU also: macOS on arm64), {OTHER_WAYS}"
        )
    library, version = platform.libc_ver()
    if library != "glibc" or [int(part) for part in version.split(".")] < [2, 28]:
        raise SetupError(
            f"libtorch needs glibc 2.28 or newer, this system has {library or 'another C library'} {version}; "
            f"use Debian 10, Ubuntu 20.04 or newer, {OTHER_WAYS}"
        )


def check_space(flavour):
    free = shutil.disk_usage(STORE).free / 1e9
    if free < GIGABYTES[flavour]:
        raise SetupError(
            f"{free:.1f} GB free in {STORE}, the {flavour} build needs {GIGABYTES[flavour]} GB while it is set up; "
            f"make room, {OTHER_WAYS}"
        )


def pins_file(flavour):
    return HERE / f"{flavour}.txt"


def read_pins(flavour):
    """The requirements file as a list of (name, version, allowed hashes)."""
    text = re.sub(r"#.*", "", pins_file(flavour).read_text()).replace("\\\n", " ")
    pins = [
        (name, version, re.findall(r"--hash=sha256:(\w+)", rest))
        for name, version, rest in re.findall(r"^(\S+)==(\S+)(.*)$", text, re.MULTILINE)
    ]
    # On macOS the one wheel is all.
    return pins if platform.system() == "Linux" else pins[:1]


def fetch(pin, temporary, progress):
    name, version, hashes = pin
    if wheel := find_wheel(name, version):
        say(f"{progress} {wheel.name} is here")
    else:
        say(f"{progress} fetching {name} {version}")
        pip_download(f"{name}=={version}", temporary)
        wheel = find_wheel(name, version)
    digest = sha256(wheel)
    if digest not in hashes:
        wheel.unlink()
        raise SetupError(
            f"{wheel.name} has sha256 {digest}, expected {' or '.join(hashes)}: damaged, or not the file that was "
            "reviewed; deleted. Run `python3 -m pip cache purge` and this again; if it repeats, do not trust the index"
        )
    return wheel


def find_wheel(name, version):
    return next(WHEELS.glob(f"{name.replace('-', '_')}-{version}-*.whl"), None)


def sha256(path):
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def pip_download(requirement, temporary):
    command = [*pip(), "download", "--no-deps", "--only-binary=:all:", f"--python-version={PYTHON_TAG}"]
    command += [f"--platform={tag}" for tag in platform_tags()]
    command += ["--disable-pip-version-check", f"--dest={WHEELS}", requirement]
    # Newer versions of pip go on with a broken transfer; older ones do not know the setting.
    environment = {**os.environ, "TMPDIR": temporary, "PIP_RESUME_RETRIES": "5"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    errors = []
    for line in process.stderr:
        errors.append(line)
        sys.stderr.write(line)
    if process.wait() != 0:
        raise SetupError(f"pip could not fetch {requirement}: {reason(''.join(errors))}")


def pip():
    candidates = [[sys.executable, "-m", "pip"]] + [[path] for path in [shutil.which("pip3")] if path]
    for command in candidates:
        if subprocess.run([*command, "--version"], capture_output=True).returncode == 0:
            return command
    raise SetupError(f"no pip for {sys.executable}; run `apt-get install python3-pip`, {OTHER_WAYS}")


def platform_tags():
    if platform.system() == "Darwin":
        return ["macosx_14_0_arm64"]
    machine = platform.machine()
    return [f"manylinux_2_{minor}_{machine}" for minor in range(12, 29)] + [f"manylinux2014_{machine}"]


def reason(errors):
    if "No space left" in errors:
        return f"the disk is full; {STORE} or pip's cache (`pip cache dir`) needs room"
    if re.search(r"NewConnectionError|NameResolution|Temporary failure|timed? ?out|ProxyError|ConnectionError", errors):
        return f"no connection to the package index; check the network or pip's proxy setting and run this again, {OTHER_WAYS}"
    if "No matching distribution" in errors:
        return f"the package index that pip is set to lacks it (`pip config list`); use another, {OTHER_WAYS}"
    return f"its own message is above; run this again, {OTHER_WAYS}"


def unpack(wheel, target, flavour):
    say(f"unpacking {wheel.name}")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            place = destination(member.filename, flavour)
            if place is None:
                continue
            path = target / place
            if path.exists():
                raise SetupError(f"two wheels hold {place}; the second is {wheel.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def destination(member, flavour):
    """Where a file of a wheel goes, or None: `lib/` and `include/`, flat, as torch-sys wants them.

    The libraries find each other there: `$ORIGIN` is in their run paths.
    """
    folder, _, name = member.rpartition("/")
    if member.startswith("torch/include/") and name:
        return member[len("torch/") :]
    if not re.search(r"\.(so|dylib)\b", name):
        return None
    if folder == "torch/lib":
        kept = not PYTHON_ONLY.match(name) and (flavour == "cuda" or not GPU_ONLY.match(name))
    else:
        kept = re.fullmatch(r"nvidia/\w+/lib", folder) and (flavour == "cuda" or NVIDIA_FOR_CPU.match(name))
    return f"lib/{name}" if kept else None


def finish(unpacked, flavour):
    if flavour == "cpu" and platform.system() == "Linux":
        # torch-sys links `torch`. The wheel's own wants the CUDA half; to the linker this is the CPU half.
        (unpacked / "lib/libtorch.so").write_text("INPUT(libtorch_cpu.so)\n")
    (unpacked / "build-version").write_text(f"{VERSION}+{flavour}\n")
    (unpacked / "stamp").write_text(stamp(flavour))


def point_current_at(flavour):
    if CURRENT.is_symlink() and CURRENT.resolve().name != flavour:
        say("another build than before: programs that are built already must be built again")
    fresh = STORE / "current.new"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(flavour)
    fresh.replace(CURRENT)
    # The build scripts of the crates that link libtorch watch this file.
    (CURRENT / "build-version").touch()


class Lock:
    """Two set-ups at once: the second one waits and then finds everything there."""

    def __init__(self, path):
        self.file = path.open("w")

    def __enter__(self):
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("waiting for another set-up that is running")
            fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_):
        self.file.close()


def shown(path):
    return os.path.relpath(path)


def say(text):
    print(text, flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SetupError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; run it again to go on")
