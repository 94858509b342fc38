"""Giving away and loading, against a server on loopback that speaks the Hub's protocol for these calls."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import vaes
from vaes import Experiment, share
from vaes.errors import UserError

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed: pip install 'vaes[hub]'")

TOKEN = "hf_right"


class Hub:
    """Repositories: name -> branch -> commits, each a dict of files."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, list[dict[str, bytes]]]] = {}
        self.private: set[str] = set()
        self.calls: list[str] = []

    def find(self, repo: str, revision: str) -> tuple[dict[str, bytes], str] | None:
        for commits in self.repos[repo].values():
            for found in commits:
                if self.commit(found) == revision:
                    return found, revision
        commits = self.repos[repo].get(revision, [])
        return (commits[-1], self.commit(commits[-1])) if commits else None

    @staticmethod
    def commit(found: dict[str, bytes]) -> str:
        return hashlib.sha1(json.dumps({k: v.hex() for k, v in sorted(found.items())}).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, content: Any = None, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def known(self) -> bool | None:
        """Whether the token is right; None where none is given."""
        given = self.headers.get("Authorization")
        return None if given is None else given == f"Bearer {TOKEN}"

    def refuse_token(self) -> None:
        self.answer(401, {"error": "Invalid"}, X_Error_Message="Invalid credentials in Authorization header")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.calls.append(f"POST {self.path}")
        path = self.path.partition("?")[0]
        if not self.known():
            return self.refuse_token()
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.hub.repos:
                return self.answer(409, {"error": "exists", "url": name})
            self.hub.repos[name] = {"main": [{}]}
            if asked.get("visibility") == "private" or asked.get("private"):
                self.hub.private.add(name)
            return self.answer(200, {"url": f"http://{self.headers['Host']}/{name}"})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/branch/(.+)", path):
            self.hub.repos[match[1]].setdefault(match[2], [dict(self.hub.repos[match[1]]["main"][-1])])
            return self.answer(200)
        if re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/(.+)", path):
            files = [f["path"] for f in json.loads(body)["files"]]
            modes = [{"path": f, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for f in files]
            return self.answer(200, {"files": modes})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            lines = [json.loads(line) for line in body.splitlines() if line.strip()]
            added = [line["value"] for line in lines if line["key"] == "file"]
            commits = self.hub.repos[match[1]][match[2]]
            commits.append({**commits[-1], **{f["path"]: base64.b64decode(f["content"]) for f in added}})
            commit = self.hub.commit(commits[-1])
            url = f"http://{self.headers['Host']}/{match[1]}/commit/{commit}"
            return self.answer(200, {"commitUrl": url, "commitOid": commit, "success": True})
        return self.answer(404, {"error": f"no {path}"})

    def do_GET(self) -> None:
        self.hub.calls.append(f"{self.command} {self.path}")
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path.partition("?")[0])
        if self.known() is False:
            return self.refuse_token()
        if match is None:
            return self.answer(404, {"error": "nothing"})
        repo, revision, name = match.groups()
        if repo not in self.hub.repos or (repo in self.hub.private and not self.known()):
            return self.answer(401, {"error": "Repository Not Found"}, X_Error_Code="RepoNotFound")
        found = self.hub.find(repo, revision)
        if found is None:
            return self.answer(404, {"error": "Invalid rev"}, X_Error_Code="RevisionNotFound")
        if name not in found[0]:
            return self.answer(404, {"error": "no file"}, X_Error_Code="EntryNotFound", X_Repo_Commit=found[1])
        etag = f'"{hashlib.sha1(found[0][name]).hexdigest()}"'
        return self.answer(200, found[0][name], ETag=etag, X_Repo_Commit=found[1])

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    from huggingface_hub import constants, hf_api

    made = Hub()
    handler = type("Bound", (Handler,), {"hub": made})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        # The environment is read when the library is imported.
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        assert hf_api.HfApi().endpoint == endpoint
        monkeypatch.chdir(tmp_path)
        yield made
        server.shutdown()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> vaes.Run:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    file = tmp_path_factory.mktemp("secret-home") / "pictures.npz"
    np.savez(file, images=pixels)
    experiment = Experiment(
        method="beta_vae",
        data={"kind": "arrays", "root": str(file)},
        model={"z_dim": 2, "network": {"kind": "mlp", "hidden": [8]}},
        train={"n_steps": 4, "batch_size": 8, "sample_freq": 0},
    )
    return experiment.fit(tmp_path_factory.mktemp("runs") / "run", device="cpu")


def test_what_is_pushed_is_loaded(hub: Hub, run: vaes.Run, tmp_path: Path) -> None:
    from huggingface_hub import constants

    env = {**os.environ, "HF_ENDPOINT": constants.ENDPOINT, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "vaes", "push", str(run.folder), "somebody/digits", "--license", "cc-by-4.0"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, f"{constants.ENDPOINT}/somebody/digits ({run.which})\n"), done.stderr
    found = vaes.load("somebody/digits")
    assert found.step == run.step
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor)
    assert (found.sample(3) == run.sample(3)).all()
    assert found.experiment.replace({"data.root": None}) == run.experiment.replace({"data.root": None})
    assert "elbo" in found._repr_html_()  # its numbers came along

    (files, _) = hub.find("somebody/digits", "main") or ({}, "")
    assert sorted(files) == ["README.md", "config.yaml", "metrics.json", "model.safetensors", "samples.png"]
    for name, content in files.items():
        assert b"secret-home" not in content, name  # no path of this machine
    head, text = files["README.md"].decode().split("---\n", 2)[1:]
    assert yaml.safe_load(head)["license"] == "cc-by-4.0"
    elbo = json.loads(files["metrics.json"])["test"]["elbo"]
    assert f"| elbo | {elbo['value']:.5g} ± {1.96 * elbo['stderr']:.3g} | nats per image |" in text
    assert 'vaes.load("somebody/digits")' in text
    assert "![samples from the prior](samples.png)" in text


def test_a_revision_is_a_branch_of_its_own(hub: Hub, run: vaes.Run) -> None:
    share.push(run, "somebody/two", revision="small")
    assert hub.repos["somebody/two"]["main"] == [{}]
    assert vaes.load("somebody/two", revision="small").step == run.step
    commit = hub.commit(hub.repos["somebody/two"]["small"][-1])
    assert vaes.load("somebody/two", revision=commit).step == run.step
    with pytest.raises(UserError, match=r"somebody/two: has no model.safetensors at http"):
        vaes.load("somebody/two")
    with pytest.raises(UserError, match="somebody/two: has no revision large at http"):
        vaes.load("somebody/two", revision="large")


def test_what_was_fetched_is_there_without_a_network(hub: Hub, run: vaes.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    share.push(run, "somebody/kept")
    vaes.load("somebody/kept")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    calls = len(hub.calls)
    assert vaes.load("somebody/kept").step == run.step
    assert len(hub.calls) == calls
    with pytest.raises(
        UserError, match=r"somebody/other: there is no such path here, and http.* cannot be reached"
    ) as e:
        vaes.load("somebody/other")
    assert "HF_HUB_OFFLINE is set" in str(e.value)


def test_a_server_that_is_gone_is_a_sentence(hub: Hub, run: vaes.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library tries again for half a minute
    gone = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", gone)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", gone + "/{repo_id}/resolve/{revision}/{filename}")
    for act in (lambda: vaes.load("somebody/digits"), lambda: share.push(run, "somebody/digits")):
        with pytest.raises(UserError, match=r"somebody/digits: .*http://127.0.0.1:9 cannot be reached") as caught:
            act()
        assert "\n" not in str(caught.value)


def test_missing_private_and_wrong_tokens_are_a_sentence(
    hub: Hub, run: vaes.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="somebody/nothing: there is no such path here, and no such repository is at"):
        vaes.load("somebody/nothing")
    share.push(run, "somebody/mine", private=True)
    assert hub.private == {"somebody/mine"}
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    for act in (lambda: vaes.load("somebody/mine"), lambda: share.push(run, "somebody/new")):
        with pytest.raises(UserError, match="does not accept this token for it; give a token by HF_TOKEN") as caught:
            act()
        assert "\n" not in str(caught.value)
    assert "somebody/new" not in hub.repos


def test_only_safetensors_are_read(hub: Hub, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return open, (str(tmp_path / "written"), "w")

    import pickle

    hub.repos["somebody/evil"] = {"main": [{"model.safetensors": pickle.dumps(Harmful()), "x.py": b"1/0"}]}
    with pytest.raises(UserError, match=r"somebody/evil on the Hub: .*not a whole safetensors file"):
        vaes.load("somebody/evil")
    assert not (tmp_path / "written").exists()


def test_paths_here_go_before_names_there(hub: Hub, run: vaes.Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "runs" / "one")
    assert vaes.load("runs/one").step == run.step
    for path in ("runs/typo", Path("somebody/digits"), "a/b/c", "nothing"):
        with pytest.raises(UserError, match="does not exist; give a weights file"):
            vaes.load(path)
    assert not hub.calls
    with pytest.raises(UserError, match="only the Hub has revisions"):
        vaes.load("runs/one", revision="main")
    for name in ("digits", "a/b/c", "../x", "a b/c"):
        with pytest.raises(UserError, match="is no name of a repository"):
            share.push(run, name)
    with pytest.raises(UserError, match="--license My Own: must be an identifier"):
        share.push(run, "a/b", license="My Own")


def test_names_of_others_are_no_markup_on_the_card(run: vaes.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = {"config": {}, "reading": "images <script>alert(1)</script> | [x](y)\n# z"}
    history = vaes.run.History([reading], [], [])
    monkeypatch.setattr(vaes.Run, "history", property(lambda self: history))
    text = share.hub.card(run, "a/b")
    assert "<script>" not in text
    assert r"\<script\>alert(1)\</script\> \| \[x\](y)" in text
    assert "Whoever published this has not said" in text


def test_a_missing_package_is_a_sentence(run: vaes.Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for act in (lambda: vaes.load("somebody/digits"), lambda: share.push(run, "somebody/digits")):
        with pytest.raises(UserError, match=r"needs a package more: pip install 'vaes\[hub\]'"):
            act()


def test_the_hub_is_not_imported_before_it_is_asked_for() -> None:
    code = "import sys, vaes; vaes.load; assert 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
