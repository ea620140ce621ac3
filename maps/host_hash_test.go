package maps

import (
	"testing"

	"github.com/cilium/ebpf"

	"roam/maps/hammer"
)

// scatter is the function of that name in bpf/hammer.bpf.c.
func scatter(x uint64) uint64 {
	x ^= x >> 31
	x *= 0x7FB5D329728EA185
	x ^= x >> 27
	x *= 0x81DADEF4BC2DD44D
	return x ^ x>>33
}

// TestHostHash compares the hashes in Go with those that bpf/table.h computes in the kernel.
func TestHostHash(t *testing.T) {
	r := seeded(t)
	for _, capacity := range []uint32{1, 100, 12345, 1 << 20} {
		m, err := CreateHostMaps(capacity)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		h4, h6, err := m.Headers()
		if err != nil {
			t.Fatal(err)
		}
		spec, err := hammer.LoadHammer()
		if err != nil {
			t.Fatal(err)
		}
		replace, err := m.Configure(spec)
		if err != nil {
			t.Fatal(err)
		}
		var loaded struct {
			Run     *ebpf.Program `ebpf:"hash_all"`
			Samples *ebpf.Map     `ebpf:"hash_samples"`
		}
		if err := spec.LoadAndAssign(&loaded, &ebpf.CollectionOptions{MapReplacements: replace}); err != nil {
			t.Fatal(err)
		}
		defer loaded.Run.Close()
		defer loaded.Samples.Close()
		n := loaded.Samples.MaxEntries()
		for i := range n {
			in := r.Uint64() >> r.IntN(64)
			if err := loaded.Samples.Put(i, hammer.HammerHashes{In: in}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := loaded.Run.Run(&ebpf.RunOptions{Data: make([]byte, 64)}); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			var got hammer.HammerHashes
			if err := loaded.Samples.Lookup(i, &got); err != nil {
				t.Fatal(err)
			}
			want := hammer.HammerHashes{In: got.In}
			key4 := got.In >> 20
			want.Hash4 = hash4(key4, &h4.Seed)
			want.Bucket4 = newPlace(want.Hash4, key4, h4.Buckets).bucket
			want.Hash6 = hash6(got.In, scatter(got.In), uint32(got.In>>52), &h6.Seed)
			want.Tag6 = tag6(want.Hash6, uint32(got.In>>52))
			want.Bucket6 = newPlace(want.Hash6, want.Tag6, h6.Buckets).bucket
			want.Front4 = frontAt(uint32(got.In>>52), uint32(got.In))
			want.Front6 = frontAt6(uint32(got.In>>52), got.In, scatter(got.In))
			if got != want {
				t.Fatalf("capacity %d: the kernel computes %+v, Go %+v", capacity, got, want)
			}
		}
	}
}
