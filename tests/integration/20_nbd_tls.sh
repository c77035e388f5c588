#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The NBD server over TCP with TLS required, accepting on one loop and serving on another, as the
# daemons do: foreign clients with right and wrong certificates, and none.
set -euo pipefail
# shellcheck source=tests/nbdserve/serve.sh
. "$(dirname "$0")/../nbdserve/serve.sh"
need nbdinfo nbdcopy qemu-img openssl

# authority FOLDER: a CA.
authority() {
	mkdir -p "$dir/$1"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
		-subj "/CN=$1" -addext basicConstraints=critical,CA:TRUE \
		-addext keyUsage=critical,keyCertSign,cRLSign \
		-keyout "$dir/$1/ca-key.pem" -out "$dir/$1/ca-cert.pem" 2>/dev/null
}

# issue CA FOLDER NAME KIND(server|client): a certificate where GnuTLS clients look for it.
issue() {
	local folder=$dir/$2
	mkdir -p "$folder"
	cp "$dir/$1/ca-cert.pem" "$folder/ca-cert.pem"
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$3" \
		-keyout "$folder/$4-key.pem" -out "$folder/request" 2>/dev/null
	chmod 600 "$folder/$4-key.pem"
	printf '%s\n' "subjectAltName=DNS:$3" "extendedKeyUsage=$4Auth" \
		"keyUsage=digitalSignature" >"$folder/extensions"
	openssl x509 -req -in "$folder/request" -days 2 -CA "$dir/$1/ca-cert.pem" \
		-CAkey "$dir/$1/ca-key.pem" -extfile "$folder/extensions" \
		-out "$folder/$4-cert.pem" 2>/dev/null
}

authority ours
authority theirs
issue ours server localhost server
issue ours client backup.example client
issue ours stranger stranger.example client
issue theirs foreign backup.example client
# A client of another CA that does trust the server.
cp "$dir/ours/ca-cert.pem" "$dir/foreign/ca-cert.pem"
mkdir "$dir/nobody"
cp "$dir/ours/ca-cert.pem" "$dir/nobody/"

serve --listen 127.0.0.1:0 --port-file "$dir/port" --lobby --identity backup.example \
	--tls "$dir/server/ca-cert.pem,$dir/server/server-cert.pem,$dir/server/server-key.pem" \
	ram:ram=64MiB ram:second=1MiB
port=$(<"$dir/port")
uri() { echo "nbds://localhost:$port/$1?tls-certificates=$dir/$2"; }

echo "the right certificate: everything works inside TLS"
nbdinfo --list "$(uri '' client)" >"$dir/info" || fail "list"
grep -q "newstyle-fixed with TLS" "$dir/info" || fail "$(cat "$dir/info")"
[[ $(grep -c '^export=' "$dir/info") == 2 ]] || fail "$(cat "$dir/info")"
dd if=/dev/urandom of="$dir/source" bs=1M count=40 status=none
truncate -s 64M "$dir/source"
nbdcopy --connections=4 --requests=32 --flush "$dir/source" "$(uri ram client)"
nbdcopy --connections=4 --requests=32 "$(uri ram client)" "$dir/back"
cmp "$dir/source" "$dir/back" || fail "the copy through TLS differs"
nbdcopy --request-size=33554432 "$(uri ram client)" "$dir/back"
cmp "$dir/source" "$dir/back" || fail "large requests through TLS differ"
qemu-img compare --object "tls-creds-x509,id=t,endpoint=client,dir=$dir/client" --image-opts \
	"driver=nbd,host=localhost,port=$port,export=ram,tls-creds=t" \
	"driver=file,filename=$dir/source" >/dev/null || fail "qemu-img through TLS"

echo "everybody else is refused"
refused() {
	local name=$1 uri=$2
	if nbdinfo --size "$uri" >"$dir/info" 2>&1; then fail "$name was let in"; fi
}
refused "another identity" "$(uri ram stranger)"
grep -q "you may not open\|policy\|not permitted" "$dir/info" ||
	fail "no reason: $(cat "$dir/info")"
refused "a certificate of another CA" "$(uri ram foreign)"
refused "no certificate" "$(uri ram nobody)"
refused "no TLS" "nbd://localhost:$port/ram"
nbdinfo --list "$(uri '' stranger)" >"$dir/info" 2>&1 || true
if grep -q '^export=' "$dir/info"; then fail "a stranger saw the list: $(cat "$dir/info")"; fi

echo "bytes in the clear behind STARTTLS"
python3 - "$port" <<'PY'
import socket, struct, sys
c = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
assert len(c.recv(18, socket.MSG_WAITALL)) == 18
option = lambda n: b"IHAVEOPT" + struct.pack(">II", n, 0)
c.sendall(struct.pack(">I", 3) + option(5) + option(8))
data = c.recv(4096)
while True:
    try:
        more = c.recv(4096)
    except ConnectionResetError:
        break
    if not more:
        break
    data += more
# An acknowledgement at most: nothing was negotiated in the clear.
assert len(data) <= 20, data
PY
grep -q "data in the clear behind STARTTLS" "$dir/log" || fail "the injection was not noticed"

echo "and the right one still works"
[[ $(nbdinfo --size "$(uri second client)") == 1048576 ]] || fail "after the refusals"
unserve
# GnuTLS does not show a certificate that the server's CA did not sign.
[[ $(grep -c "presented no certificate" "$dir/log") == 2 ]] || fail "the log does not say why"
