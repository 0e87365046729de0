#!/bin/sh
# Generates the Go code of attest.proto with pinned generators, kept in the git-ignored .tools of the repository. Where neither the source, nor
# this script, nor the result has changed since the last time (generated.sum), there is nothing to do and nothing to fetch.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
sum() { cat attest.proto generate.sh attest.pb.go attest_grpc.pb.go 2>/dev/null | cksum; }
if [ "$(sum)" = "$(cat generated.sum 2>/dev/null)" ]; then
	exit 0
fi
tools=$(cd "$here/../../.." && pwd)/.tools/protoc
mkdir -p "$tools"
if [ ! -x "$tools/venv/bin/python" ]; then
	python3 -m venv "$tools/venv"
	"$tools/venv/bin/pip" install --quiet grpcio-tools==1.76.0
fi
[ -x "$tools/protoc-gen-go" ] || GOBIN="$tools" go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
[ -x "$tools/protoc-gen-go-grpc" ] || GOBIN="$tools" go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.0
PATH="$tools:$PATH" "$tools/venv/bin/python" -m grpc_tools.protoc -I. \
	--go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative attest.proto
sum >generated.sum
