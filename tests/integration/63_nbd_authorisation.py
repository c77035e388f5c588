#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who may open a group's volumes over TCP: only with TLS, with a certificate of the CA that is in
force, and, where nbd_clients lists some, only those. What a client may not open it does not see."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from lab import check, free_port, main, say
from sites import MIB, Pki, Site

import nbd


def certificates(lab, name, tls):
    """A directory as libnbd wants it."""
    folder = lab.make_dir(name)
    for file, target in (("ca-cert.pem", tls["ca"]), ("client-cert.pem", tls["cert"]), ("client-key.pem", tls["key"])):
        os.symlink(target, os.path.join(folder, file))
    return folder


def connect(port, name, folder=None, list_only=False):
    handle = nbd.NBD()
    handle.set_export_name(name)
    if folder:
        handle.set_tls(nbd.TLS_REQUIRE)
        handle.set_tls_certificates(folder)
        handle.set_tls_verify_peer(False)  # it would look for the name localhost
    if list_only:
        handle.set_opt_mode(True)
    handle.connect_tcp("127.0.0.1", str(port))
    return handle


def refused(what, *args):
    try:
        handle = connect(*args)
    except nbd.Error:
        return
    try:
        handle.pread(512, 0)
    except nbd.Error:
        return
    check(False, f"{what} was let in")


def names(port, folder):
    handle = connect(port, "", folder, list_only=True)
    found = []
    handle.opt_list(lambda name, _text: found.append(name) or 0)
    handle.opt_abort()
    return sorted(found)


def test(lab):
    site = Site(lab, "alpha", {"open": {"a": MIB}, "closed": {"b": MIB}}, {})
    pki = Pki(lab)
    site.tls = pki.issue(site.node)
    port = free_port()
    site.top["agent"] = {"nbd_listen": f"127.0.0.1:{port}", "nbd_tls": "required"}
    site.write_conf()
    with open(site.conf, encoding="utf-8") as file:
        text = file.read()
    text = text.replace('group "closed" {', 'group "closed" {\n\tnbd_clients = { "guest.example" }')
    with open(site.conf, "w", encoding="utf-8") as file:
        file.write(text)
    site.init("primary")
    guest = certificates(lab, "guest", pki.issue("guest.example"))
    other = certificates(lab, "other", pki.issue("other.example"))
    gone = certificates(lab, "gone", pki.issue("gone.example"))
    stranger = certificates(lab, "stranger", Pki(lab, "strange").issue("guest.example"))
    pki.revoke("gone.example")
    site.start_daemon("agent")
    for group in site.groups:
        site.wait_serving(group)

    say("who is listed, and who has a certificate at all")
    for name, folder in (("open/a", guest), ("open/a", other), ("closed/b", guest)):
        handle = connect(port, name, folder)
        handle.pwrite(b"x" * 4096, 0)
        check(handle.pread(4096, 0) == b"x" * 4096, f"{name}: read back something else")
        handle.shutdown()
    check(names(port, guest) == ["closed/b", "open/a"], f"the guest sees {names(port, guest)}")
    check(names(port, other) == ["open/a"], f"who is not listed sees {names(port, other)}")

    say("who is not")
    refused("who is not listed", port, "closed/b", other)
    refused("a client without TLS", port, "open/a")
    refused("a revoked certificate", port, "open/a", gone)
    refused("a certificate of another CA", port, "closed/b", stranger)
    for name in ("", "open", "open/", "/a", "open/b", "closed", "../open/a", "x" * 4096):
        refused(f"the name {name[:20]!r}", port, name, guest)
    site.stop_daemon("agent")


main(test, "63")
