package maps

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Refused counts packets that drivers refused after the program had returned, by interface; see bpf/watch.bpf.c. It counts from
// OpenRefused to Close: unlike forwarding it does not outlive the process. Safe for concurrent use.
type Refused struct {
	objects watchObjects
	links   []link.Link
}

// OpenRefused begins to count in a network namespace, which is named by the inode of its /proc/.../ns/net. It takes a kernel with
// BTF, Linux 5.5 or later.
func OpenRefused(namespace uint32) (_ *Refused, err error) {
	spec, err := loadWatch()
	if err != nil {
		return nil, fmt.Errorf("read the embedded program: %w", err)
	}
	if err := spec.Variables["namespace"].Set(namespace); err != nil {
		return nil, fmt.Errorf("set constant namespace: %w", err)
	}
	r := &Refused{}
	if err := spec.LoadAndAssign(&r.objects, nil); err != nil {
		return nil, fmt.Errorf("load the programs that count refused packets: %w", err)
	}
	for _, p := range []*ebpf.Program{r.objects.Unqueued, r.objects.Unsent, r.objects.Unreturned} {
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach %s to its tracepoint: %w", p, err), r.Close())
		}
		r.links = append(r.links, l)
	}
	return r, nil
}

// Watch counts for these interfaces, by index; those that are counted already go on.
func (r *Refused) Watch(indexes ...uint32) error {
	for _, i := range indexes {
		err := r.objects.Refused.Update(i, uint64(0), ebpf.UpdateNoExist)
		if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("count refused packets of the interface with index %d: %w", i, err)
		}
	}
	return nil
}

// Count is how many packets an interface refused, 0 for one that is not watched.
func (r *Refused) Count(index uint32) (packets uint64) {
	if r.objects.Refused.Lookup(index, &packets) != nil {
		return 0
	}
	return packets
}

// Close stops counting.
func (r *Refused) Close() error {
	errs := []error{r.objects.Close()}
	for _, l := range r.links {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
