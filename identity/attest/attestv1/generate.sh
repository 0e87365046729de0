#!/bin/sh
# Generates the Go code of attest.proto with pinned generators, kept in the git-ignored .tools of the repository.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tools=$(cd "$here/../../.." && pwd)/.tools/protoc
mkdir -p "$tools"
if [ ! -x "$tools/venv/bin/python" ]; then
	python3 -m venv "$tools/venv"
	"$tools/venv/bin/pip" install --quiet grpcio-tools==1.76.0
fi
[ -x "$tools/protoc-gen-go" ] || GOBIN="$tools" go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
[ -x "$tools/protoc-gen-go-grpc" ] || GOBIN="$tools" go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.0
cd "$here"
PATH="$tools:$PATH" "$tools/venv/bin/python" -m grpc_tools.protoc -I. \
	--go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative attest.proto
