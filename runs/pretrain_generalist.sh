#!/bin/sh
# Makes all that `--model DIR` needs: episodes, networks of two seeds, the gate's priors; resumable.
#   runs/pretrain_generalist.sh --out DIR [--corpus local|open]     (BETZ_DATA says where the recordings are)
set -eu
here=$(dirname "$0")
out=runs/generalist
previous=
for argument in "$@"; do
  [ "$previous" = --out ] && out=$argument
  previous=$argument
done
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
python "$here/pretrain_generalist.py" "$@"
python "$here/gate_priors.py" collect --out "$out/gate.jsonl" --model "$out/model" --sessions validate --budget 60
python "$here/gate_priors.py" collect --out "$out/gate_new.jsonl" --model "$out/model" --sessions validate --new
python "$here/gate_priors.py" learn "$out/gate.jsonl" "$out/gate_new.jsonl" --out "$out/model"
