#!/bin/sh
# Makes all that `--model DIR` needs, in DIR: episodes, networks of two seeds, the gate's priors; resumable.
#   runs/pretrain_generalist.sh --out DIR [--corpus local|open]     (BETZ_DATA says where the recordings are)
# Priors for subjects without a history are not learned here: they need networks that have not seen whole subjects.
set -eu
here=$(dirname "$0")
out=
previous=
for argument in "$@"; do
  [ "$previous" = --out ] && out=$argument
  previous=$argument
done
[ -n "$out" ] || { echo "error: give --out DIR" >&2; exit 1; }
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
python "$here/pretrain_generalist.py" "$@"
python "$here/gate_priors.py" collect --out "$out/gate.jsonl" --model "$out" --sessions validate --budget 60
python "$here/gate_priors.py" learn "$out/gate.jsonl" --out "$out"
