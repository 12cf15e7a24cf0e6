"""Downloads from a mirror on this machine that fails in every way, into folders that are full, shared or read-only."""

import http.client
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from small_sets import SHAPES, isolate, names_below, packed, publish, same, small_set, write_files
from torchvision import datasets

from vae_tutorial import data
from vae_tutorial.data import load_images

FILES = small_set()
PACKED = packed(FILES)
slow = pytest.mark.slow


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        _, folder, file = self.path.split("/")
        self.server.answers.get(folder, give)(self, PACKED[file])

    def log_message(self, *args):
        pass


class Mirror(ThreadingHTTPServer):
    """Answer every request under /NAME/ with answers[NAME](handler, body), else with the body."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.answers, self.closing = [], {}, threading.Event()

    def url(self, folder):
        return f"http://127.0.0.1:{self.server_port}/{folder}/"

    def handle_error(self, *args):
        """Say nothing where torchvision hangs up: it asks for every file twice, and reads one answer."""


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(data, "TIMEOUT", 5)
    return isolate(monkeypatch, tmp_path)


@pytest.fixture
def mirror(monkeypatch):
    """Serve a small set in a thread, as the only mirror, under /first/."""
    with Mirror() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        publish(monkeypatch, FILES, mirrors=[server.url("first")])
        yield server
        server.closing.set()
        server.shutdown()


def give(handler, body, length=None, **headers):
    handler.send_response(200)
    headers = {"Content-Length": len(body) if length is None else length} | headers
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()
    handler.wfile.write(body)
    handler.wfile.flush()


def status(code):
    return lambda handler, body: handler.send_error(code)


def send_to(address):
    def answer(handler, body):
        handler.send_response(302)
        handler.send_header("Location", address or handler.path)
        handler.end_headers()

    return answer


def stop_in_a_chunk(handler, body):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"%x\r\n" % len(body) + body[: len(body) // 2])


def reset_in_the_middle(handler, body):
    give(handler, body[: len(body) // 2], length=len(body))
    at_once = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    socket.close(handler.connection.detach())


def stall(handler, body):
    handler.server.closing.wait()


def stall_in_the_middle(handler, body):
    give(handler, body[: len(body) // 2], length=len(body))
    stall(handler, body)


FAULTS = {
    "403": status(403),
    "404": status(404),
    "503": status(503),
    "stops in the middle": lambda handler, body: give(handler, body[: len(body) // 2], length=len(body)),
    "stops in a chunk": stop_in_a_chunk,
    "stalls": stall,
    "stalls in the middle": stall_in_the_middle,
    "hangs up": lambda handler, body: None,
    "resets in the middle": reset_in_the_middle,
    "speaks no HTTP": lambda handler, body: handler.wfile.write(b"220 welcome\r\n"),
    "sends nothing": lambda handler, body: give(handler, b""),
    "sends a page to log in": lambda handler, body: give(handler, b"<html>Log in to the Wi-Fi</html>"),
    "sends one bit changed": lambda handler, body: give(handler, body[:-1] + bytes([body[-1] ^ 1])),
    "sends another file": lambda handler, body: give(handler, PACKED["t10k-labels-idx1-ubyte.gz"][::-1]),
    "sends in a circle": send_to(None),
    "sends to a file": send_to("file:///etc/passwd"),
    "sends to no address": send_to("http://["),
}
every_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


def whole(folder):
    """Return all names there are when a folder beside the others holds the set."""
    return {folder, f"{folder}/MNIST", f"{folder}/MNIST/raw", *[f"{folder}/MNIST/raw/{f}" for f in [*FILES, *PACKED]]}


def refused(*pieces):
    with pytest.raises(FileNotFoundError) as error:
        load_images("mnist")
    for piece in ["The data set mnist", "try again", "VAE_TUTORIAL_DATASET=mnist-5k", *pieces]:
        assert str(piece) in str(error.value)
    return str(error.value)


def test_a_download_is_what_the_mirror_holds_and_lands_in_the_first_folder_alone(mirror, tmp_path):
    assert same(load_images("mnist"), FILES)
    assert set(names_below(tmp_path)) == whole("named")


@slow
def test_what_was_downloaded_is_not_asked_for_again(mirror):
    load_images("mnist")
    count = len(mirror.requests)
    assert count > 0 and same(load_images("mnist"), FILES) and len(mirror.requests) == count


@slow
def test_fashion_is_downloaded_from_its_own_mirror(mirror, folders, monkeypatch):
    publish(monkeypatch, FILES, "fashion-mnist", [mirror.url("fashion")])
    assert same(load_images("fashion-mnist"), FILES)
    assert (folders[0] / "FashionMNIST" / "raw").is_dir()
    assert {path.split("/")[1] for path in mirror.requests} == {"fashion"}


@slow
@every_fault
def test_a_failed_download_leaves_nothing_says_what_to_do_and_can_be_tried_again(fault, mirror, tmp_path):
    mirror.answers["first"] = fault
    message = refused(mirror.url("first"))
    assert "\n" not in message and names_below(tmp_path) == ["named"]
    mirror.answers.clear()
    assert same(load_images("mnist"), FILES)


@slow
@every_fault
def test_where_one_mirror_fails_the_next_is_asked(fault, mirror, monkeypatch, tmp_path):
    publish(monkeypatch, FILES, mirrors=[mirror.url("first"), mirror.url("second")])
    mirror.answers["first"] = fault
    assert same(load_images("mnist"), FILES)
    assert set(names_below(tmp_path)) == whole("named")


@pytest.mark.parametrize("file", SHAPES)
def test_a_download_that_is_cut_at_any_file_leaves_nothing(file, mirror, tmp_path):
    mirror.answers["first"] = lambda handler, body: (stop_in_a_chunk if file in handler.path else give)(handler, body)
    refused()
    assert names_below(tmp_path) == ["named"]


@slow
def test_ctrl_c_in_a_download_leaves_nothing(mirror, tmp_path, monkeypatch):
    def read(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(http.client.HTTPResponse, "read", read)
    with pytest.raises(KeyboardInterrupt):
        load_images("mnist")
    assert mirror.requests and names_below(tmp_path) == ["named"]


@slow
def test_what_a_killed_download_left_is_never_read(mirror, folders):
    write_files(folders[0] / "download-killed" / "MNIST" / "raw", small_set(seed=1))
    assert same(load_images("mnist"), FILES)


@slow
@pytest.mark.parametrize("name", ["../../../outside.gz", "..\\outside.gz", "/outside.gz"])
def test_the_mirror_does_not_choose_the_names(name, mirror, tmp_path):
    mirror.answers["first"] = lambda handler, body: give(
        handler, body, Content_Disposition=f"attachment; filename={name}"
    )
    load_images("mnist")
    assert set(names_below(tmp_path)) == whole("named")


@slow
def test_the_progress_stays_visible(mirror, capfd):
    load_images("mnist")
    assert capfd.readouterr().err.count("100%") == len(FILES)


@slow
@pytest.mark.parametrize("fault", [give, status(403)])
def test_the_waiting_time_of_other_connections_is_as_before(fault, mirror):
    mirror.answers["first"] = fault
    socket.setdefaulttimeout(77)
    try:
        load_images("mnist") if fault is give else refused()
        assert socket.getdefaulttimeout() == 77
    finally:
        socket.setdefaulttimeout(None)


def test_mirrors_are_asked_in_an_order_that_works(monkeypatch):
    asked = []

    def download(url, folder, md5):
        asked.append(url)
        raise RuntimeError("down")

    monkeypatch.setattr(data, "download_and_extract_archive", download)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [*datasets.MNIST.mirrors][::-1])
    refused()
    hosts = [url.split("/")[2] for url in asked]
    assert hosts == ["ossci-datasets.s3.amazonaws.com", "yann.lecun.com"]


def test_without_a_network_the_error_comes_at_once(monkeypatch):
    def look_up(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "no such host")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(data, "TIMEOUT", 600)
    refused("no such host")


@slow
@pytest.mark.parametrize("place", ["", "MNIST", "MNIST/raw"])
def test_where_a_file_is_in_the_way_the_next_folder_is_taken(place, mirror, folders, tmp_path):
    (folders[0] / place).parent.mkdir(parents=True, exist_ok=True)
    (folders[0] / place).write_text("a file, where a folder should be")
    before = set(names_below(tmp_path))
    assert same(load_images("mnist"), FILES)
    assert set(names_below(tmp_path)) == before | whole("cache")


@contextmanager
def without_rights():
    """Act as a user who owns nothing, where the test runs as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared():
    """Return a folder that anyone may enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def make_read_only(*folders):
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o555)


needs_rights = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has other rights")


@slow
@needs_rights
def test_a_set_in_a_read_only_folder_is_read(mirror, shared, monkeypatch):
    folders = isolate(monkeypatch, shared)
    write_files(folders[0] / "MNIST" / "raw", FILES)
    make_read_only(folders[0])
    with without_rights():
        assert same(load_images("mnist"), FILES)
    assert mirror.requests == []


@slow
@needs_rights
def test_where_the_first_folder_is_read_only_the_next_is_taken(mirror, shared, monkeypatch):
    folders = isolate(monkeypatch, shared)
    make_read_only(folders[0])
    folders[2].mkdir()
    folders[2].chmod(0o777)
    with without_rights():
        assert same(load_images("mnist"), FILES)
    assert set(names_below(shared)) == {"named"} | whole("cache")


@slow
@needs_rights
def test_where_all_folders_are_read_only_each_is_named(mirror, shared, monkeypatch):
    folders = isolate(monkeypatch, shared)
    make_read_only(folders[0], folders[2])
    with without_rights():
        refused(f"{folders[0]}: [Errno 13]", f"{folders[2]}: [Errno 13]", "or has room for it")
    assert mirror.requests == []


@slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_everyone_may_read_what_one_downloaded(mirror, folders):
    load_images("mnist")
    raw, before = folders[0] / "MNIST" / "raw", os.umask(0)
    os.umask(before)
    assert raw.stat().st_mode & 0o777 == 0o777 & ~before


@slow
@pytest.mark.parametrize("kilobytes", [8, 40])  # too little for a packed file of 26, and for one that unpacks to 78
def test_a_full_disk_is_named_and_nothing_is_left(kilobytes, mirror, folders, tmp_path):
    resource = pytest.importorskip("resource", reason="Windows has no quota to set")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1000, before[1]))
    try:
        refused(f"{folders[0]}: [Errno 27] File too large", f"{folders[2]}: [Errno 27]", "or has room for it")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names_below(tmp_path) == ["cache", "named"]


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import pytest, small_sets
from vae_tutorial import data
with pytest.MonkeyPatch.context() as monkeypatch:
    small_sets.isolate(monkeypatch, sys.argv[2])
    small_sets.publish(monkeypatch, small_sets.small_set(), mirrors=[sys.argv[3]])
    monkeypatch.setattr(data, "TIMEOUT", 300)  # the first waits until the last has started
    print([small_sets.same(data.load_images("mnist"), small_sets.small_set()) for _ in range(2)])
"""


@slow
def test_processes_that_download_into_one_folder_at_once_all_get_the_right_data(mirror, tmp_path):
    count = 4
    together = threading.Barrier(count)

    def answer(handler, body):
        if len(mirror.requests) <= count:  # the first request of each: all of them have found no data
            together.wait(timeout=300)
        give(handler, body)

    mirror.answers["first"] = answer
    tests = Path(__file__).parent
    command = [sys.executable, "-c", CHILD, str(tests), str(tmp_path), mirror.url("first")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, cwd=tests.parent, **pipes) for _ in range(count)]
    results = [child.communicate(timeout=600) for child in children]
    assert [out for out, _ in results] == ["[True, True]\n"] * count, results
    assert [path.split("/")[2] for path in mirror.requests].count("train-labels-idx1-ubyte.gz") == 2 * count
    assert set(names_below(tmp_path)) == whole("named")
