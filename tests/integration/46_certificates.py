#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Certificates: what is refused, by whom, in which words; and that refusals do no harm."""

import os
import shutil
import ssl
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import nbd
from lab import check, fail, free_port, main, say
from numbered import Plan, Writer
from sites import MIB, Pair, Pki


def expired(lab, pki, node):
    """A certificate of the right authority that has ended; openssl makes it."""
    directory = lab.make_dir("expired")
    key, request, cert = (os.path.join(directory, f"{node}.{end}") for end in ("key", "csr", "pem"))
    conf = os.path.join(directory, "ca.cnf")
    with open(conf, "w", encoding="ascii") as file:
        file.write(f"""[ca]
default_ca = d
[d]
database = {directory}/index.txt
new_certs_dir = {directory}
serial = {directory}/serial
default_md = sha256
policy = p
x509_extensions = e
unique_subject = no
[p]
commonName = supplied
[e]
subjectAltName = DNS:{node}
extendedKeyUsage = serverAuth, clientAuth
keyUsage = digitalSignature
basicConstraints = CA:FALSE
""")
    open(os.path.join(directory, "index.txt"), "w", encoding="ascii").close()
    with open(os.path.join(directory, "serial"), "w", encoding="ascii") as file:
        file.write("7A7A01\n")
    lab.run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", key, "-out", request, "-subj", f"/CN={node}")
    os.chmod(key, 0o600)
    lab.run("openssl", "ca", "-batch", "-notext", "-config", conf, "-in", request, "-out", cert,
            "-cert", os.path.join(pki.dir, "ca.pem"), "-keyfile", os.path.join(pki.dir, "ca.key"),
            "-startdate", "20200101000000Z", "-enddate", "20210101000000Z")
    return cert, key


def restart_agent(pair):
    if "agent" in pair.alpha.processes:
        pair.alpha.stop_daemon("agent")
    pair.alpha.write_conf()
    pair.alpha.start_daemon("agent")


def refused(pair, what, *words):
    """alpha's agent says why its standby does not take it; its clients are served all the same."""
    def told(state):
        if not state["peers"]:
            return False
        peer = state["peers"][0]
        text = peer["error"].lower()
        return not peer["connected"] and text and any(word in text for word in words)

    try:
        state = pair.alpha.wait_group("db", "agent", f"{what}: one of {words}", told, 10)
    except Exception:
        say(f"  engine: {pair.beta.log_text('engine')[-1500:]}")
        raise
    say(f"  {what}: {state['peers'][0]['error']}")
    pair.alpha.wait_serving("db")
    time.sleep(0.3)
    check(not pair.beta.group("db", "engine")["standby"]["connected"], f"{what}: it is connected")


def healthy(pair):
    restart_agent(pair)
    pair.beta.wait_streaming("db")


def replication(lab, pair):
    good = dict(pair.alpha.tls)
    other = Pki(lab, "otherpki")

    say("the primary's certificate comes from another authority")
    foreign = other.issue(pair.alpha.node)
    pair.alpha.tls = dict(good, cert=foreign["cert"], key=foreign["key"])
    restart_agent(pair)
    refused(pair, "wrong CA", "another ca")

    say("the primary trusts another authority")
    pair.alpha.tls = dict(good, ca=foreign["ca"], crl=foreign["crl"])
    pair.alpha.tls.pop("crl")
    restart_agent(pair)
    refused(pair, "engine of a foreign CA", "another ca")

    say("expired")
    cert, key = expired(lab, pair.pki, pair.alpha.node)
    pair.alpha.tls = dict(good, cert=cert, key=key)
    restart_agent(pair)
    refused(pair, "expired", "expired")

    say("a node that the group's configuration does not name")
    stranger = pair.pki.issue("stranger.example")
    pair.alpha.tls = dict(good, cert=stranger["cert"], key=stranger["key"])
    node, pair.alpha.node = pair.alpha.node, "stranger.example"
    restart_agent(pair)
    refused(pair, "stranger", "unknown group", "not allowed", "no such group", "unknown-group", "group")
    pair.alpha.node = node

    pair.alpha.tls = good
    healthy(pair)

    say("the standby is another node than the configuration says")
    other_beta = pair.pki.issue("gamma.example")
    pair.beta.stop_daemon("engine")
    keep = dict(pair.beta.tls), pair.beta.node
    pair.beta.tls, pair.beta.node = other_beta, "gamma.example"
    pair.beta.write_conf()
    pair.beta.start_daemon("engine")
    refused(pair, "wrong name", "gamma.example", "identity", "name")
    pair.beta.stop_daemon("engine")
    pair.beta.tls, pair.beta.node = keep
    pair.beta.write_conf()
    pair.beta.start_daemon("engine")
    pair.beta.wait_streaming("db")

    say("revoked: the engine reloads its list, the next connection is refused")
    pair.pki.revoke(pair.alpha.node)
    pair.beta.processes["engine"].send_signal(1)
    time.sleep(0.5)
    restart_agent(pair)
    refused(pair, "revoked", "revoked")
    pair.alpha.tls = pair.pki.issue(pair.alpha.node, lab.path("renewed"))
    healthy(pair)


def no_certificate(pair):
    say("a client without a certificate; one with TLS 1.2")
    for what, settings in (("no certificate", {}), ("TLS 1.2", {"old": True})):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(pair.alpha.tls["ca"])
        if settings:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(pair.alpha.tls["cert"], pair.alpha.tls["key"])
        import socket
        with socket.create_connection(("127.0.0.1", pair.beta.port), timeout=5) as sock:
            try:
                with context.wrap_socket(sock) as tls:
                    tls.settimeout(5)
                    tls.sendall(b"x" * 64)
                    check(tls.recv(1) == b"", f"{what}: the engine answers")
            except ssl.SSLError as error:
                say(f"  {what}: {error.reason}")
            except ConnectionError as error:
                say(f"  {what}: {error}")


def bad_files(lab, pair):
    say("a daemon does not start with what cannot work, and says which file")
    good = dict(pair.alpha.tls)
    pair.alpha.stop_daemon("agent")
    broken = lab.path("broken.pem")
    with open(broken, "w", encoding="ascii") as file:
        file.write("-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n")
    loose = lab.path("loose.key")
    shutil.copy(good["key"], loose)
    os.chmod(loose, 0o644)
    gamma = pair.pki.issue("gamma2.example")
    cases = {
        "missing": (dict(good, cert=lab.path("nowhere.pem")), "nowhere.pem"),
        "broken": (dict(good, cert=broken), "broken.pem"),
        "key of another": (dict(good, key=gamma["key"]), "key"),
        "another node's": (dict(good, cert=gamma["cert"], key=gamma["key"]), "gamma2.example"),
    }
    for what, (tls, word) in cases.items():
        pair.alpha.tls = tls
        pair.alpha.write_conf()
        before = len(pair.alpha.log_text("agent"))
        process = pair.alpha.start_daemon("agent", wait=False)
        try:
            status = process.wait(10)
        except Exception:
            fail(f"{what}: the agent started")
        pair.alpha.processes.pop("agent")
        text = pair.alpha.log_text("agent")[before:]
        check(status != 0 and word in text, f"{what}: status {status}, {text}")
    pair.alpha.tls = good
    pair.alpha.write_conf()
    pair.alpha.start_daemon("agent")


def nbd_over_tls(lab, pair):
    say("NBD over TCP: TLS is required, and a certificate of the authority")
    port = pair.alpha.top["agent"]["nbd_listen"].rpartition(":")[2]
    handle = nbd.NBD()
    handle.set_export_name("db/data")
    try:
        handle.connect_tcp("127.0.0.1", port)
        fail("a volume was opened without TLS")
    except nbd.Error as error:
        say(f"  plain: {error.string[:90]}")
    try:
        handle = nbd.NBD()
        handle.set_tls(nbd.TLS_REQUIRE)
        handle.set_tls_verify_peer(False)
        handle.set_export_name("db/data")
        handle.connect_tcp("127.0.0.1", port)
        fail("a volume was opened without a certificate")
    except nbd.Error as error:
        say(f"  no certificate: {error.string[:90]}")
    for node, allowed in (("vm1.example", True), ("vm2.example", False)):
        files = pair.pki.issue(node)
        directory = lab.make_dir(f"nbd-{node}")
        for name, path in (("ca-cert.pem", files["ca"]), ("client-cert.pem", files["cert"]),
                           ("client-key.pem", files["key"])):
            shutil.copy(path, os.path.join(directory, name))
        try:
            handle = nbd.NBD()
            handle.set_tls(nbd.TLS_REQUIRE)
            handle.set_tls_certificates(directory)
            handle.set_tls_verify_peer(False)
            handle.set_export_name("db/data")
            handle.connect_tcp("127.0.0.1", port)
            check(allowed, f"{node} may not open the volume, and did")
            handle.pwrite(b"over tls" * 512, 8192)
            handle.flush()
            check(bytes(handle.pread(4096, 8192)) == b"over tls" * 512, "read back over TLS")
            handle.shutdown()
        except nbd.Error as error:
            check(not allowed, f"{node}: {error}")
            say(f"  {node}: {error.string[:90]}")


def test(lab):
    pair = Pair(lab, {"db": {"data": 16 * MIB}})
    pair.alpha.options["nbd_clients"] = '{"vm1.example"}'
    pair.alpha.top["agent"] = {"nbd_listen": f"127.0.0.1:{free_port()}", "nbd_tls": "required"}
    pair.alpha.write_conf()
    pair.start()
    replication(lab, pair)
    no_certificate(pair)
    bad_files(lab, pair)
    pair.alpha.wait_serving("db")
    pair.beta.wait_streaming("db")
    nbd_over_tls(lab, pair)
    writer = Writer(Plan(1, 4096, seed=46), [pair.alpha.uri("db", "data")], limit=500)
    writer.start()
    check(writer.died() == 500, f"{writer.error}")
    pair.stop_and_compare()


main(test, "46", tools=("openssl",))
