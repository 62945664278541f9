# SPDX-License-Identifier: Apache-2.0
"""`fresco models`: list, show, pull, add, remove, check."""
from __future__ import annotations

import argparse
from typing import Any

NAME = '"embedded", a name of the list, a path or a hub id'
MODELS = """\
The models that options may name, with their LoRAs, autoencoders, ControlNets and depth detectors. They lie in the
models folder (FRESCO_MODELS) and in the hub's cache."""


def add_models(commands: Any) -> None:
    """Adds the command with its six verbs."""
    command = commands.add_parser("models", help="list, show, fetch, add, remove or check models", description=MODELS)
    verbs = command.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _verb(verbs, "list", _list, "list what is on this machine")
    _verb(verbs, "show", _show, "show a model's card, its words, and hashes of its files").add_argument(
        "name", metavar="NAME", help=NAME)
    _verb(verbs, "pull", _pull, "fetch a model, LoRA, ControlNet or autoencoder from the hub").add_argument(
        "name", metavar="ID", help='"owner/name", or "owner/name/file.safetensors"')
    add = _verb(verbs, "add", _add, "put a folder or .safetensors file into the models folder")
    add.add_argument("source", metavar="PATH", help="the folder or file; it is checked first")
    add.add_argument("--name", help="the name to find it by (default: its own)")
    add.add_argument("--link", action="store_true", help="link it instead of copying it")
    _verb(verbs, "remove", _remove, "take a model out of the models folder or the hub's cache").add_argument(
        "name", metavar="NAME", help="a name of the list; a link is removed, never what it leads to")
    check = _verb(verbs, "check", _check, "check that every component of a model is there and whole")
    check.add_argument("name", metavar="NAME", help=NAME)
    check.add_argument("--allow-download", action="store_true", help="fetch it from the hub first")


def _verb(verbs: Any, name: str, run: Any, sentence: str) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(
        name, help=sentence, description=f"{sentence[0].upper()}{sentence[1:]}.")
    verb.add_argument("--json", action="store_true", help="JSON on stdout")
    verb.set_defaults(run=run)
    return verb


def _list(arguments: argparse.Namespace) -> int:
    from fresco_backend.terminal.model_listing import list_models

    return list_models(as_json=arguments.json)


def _show(arguments: argparse.Namespace) -> int:
    from fresco_backend.terminal.model_listing import show_model

    return show_model(arguments.name, as_json=arguments.json)


def _pull(arguments: argparse.Namespace) -> int:
    from fresco_backend.terminal.model_listing import pull_model

    return pull_model(arguments.name, as_json=arguments.json)


def _add(arguments: argparse.Namespace) -> int:
    from fresco_backend.terminal.model_listing import add_model

    return add_model(arguments.source, arguments.name, link=arguments.link, as_json=arguments.json)


def _remove(arguments: argparse.Namespace) -> int:
    from fresco_backend.terminal.model_listing import remove_model

    return remove_model(arguments.name, as_json=arguments.json)


def _check(arguments: argparse.Namespace) -> int:
    from fresco_backend.terminal.model_listing import check_model

    return check_model(arguments.name, as_json=arguments.json, allow_download=arguments.allow_download)
