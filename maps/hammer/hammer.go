// Package hammer holds the reader of the host table's race test: a BPF program, loaded from bpf/hammer.bpf.c,
// that looks hosts up with the data path's own code and judges every answer. Only tests use it.
package hammer

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type change -type hashes -type verdict -type sizes Hammer ../../bpf/hammer.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
