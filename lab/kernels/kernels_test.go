package kernels_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// TestKernels boots each kernel and has it load the program, run the packet tests, and forward with the program attached to
// virtio_net.
func TestKernels(t *testing.T) {
	if len(lines()) == 0 {
		t.Skip("boots other kernels: make test-kernels")
	}
	packetTests, tableTests = buildTests(t, "roam/bpf/test"), buildTests(t, "roam/maps")
	results = make([]result, len(lines()))
	t.Cleanup(func() { t.Log("\n" + table(results)) })
	var list []lab.Kernel
	for _, line := range lines() {
		list = append(list, kernel(t, line)) // one at a time
	}
	t.Parallel() // a guest takes one processor
	for i, k := range list {
		t.Run(lines()[i], func(t *testing.T) {
			t.Parallel()
			results[i] = test(t, k)
		})
	}
}

func test(t *testing.T, k lab.Kernel) result {
	start := time.Now()
	n := newNetwork(t, k)
	r := result{Release: k.Release}
	r.Verifier = verifier(t, n.gw)
	r.Golden = testsIn(t, n.gw, packetTests, "-test.skip", notHere)
	r.Model = testsIn(t, n.gw, packetTests, "-test.run", "^TestModel$")
	r.Tables = testsIn(t, n.gw, tableTests, "-test.run", tablesHere)
	n.up()
	checkNetwork(t, n)
	checkExplain(t, n)
	r.Network = !t.Failed()
	r.Time = time.Since(start)
	return r
}

const (
	// Of the packet tests, what is run by itself, needs a fast machine, or is arithmetic by the ten thousand.
	notHere = "^(TestVerifier|TestModel|TestHostTableUnderFire|TestTTLChecksum|TestProbeChecksums|TestFlowsSpread)$"
	// Of the host table's tests, those that take a second.
	tablesHere = "^(TestHostHash|TestHosts(Adopt|Killed|Displacement|AddressKept|Front|Concurrent|PutAll|GrowHolds))$"
	// Frames of TestModel: enough to come to every reason.
	modelFrames = 20_000
)

var verified = regexp.MustCompile(`(\S+): ([0-9]+) instructions verified`)

// verifier loads every variant of the program and returns what the verifier said of each.
func verifier(t *testing.T, g *lab.Guest) (list []variant) {
	t.Helper()
	out, err := g.Try(time.Minute, packetTests+" -test.v -test.run ^TestVerifier$")
	if err != nil {
		t.Errorf("load the program: %v\n%s", err, out)
	}
	for _, m := range verified.FindAllStringSubmatch(out, -1) {
		count, err := strconv.Atoi(m[2])
		if err != nil {
			t.Error(err)
		}
		list = append(list, variant{m[1], count})
	}
	if len(list) == 0 {
		t.Errorf("no program was loaded:\n%s", out)
	}
	return list
}

// testsIn runs a test binary in the guest and counts what passed.
func testsIn(t *testing.T, g *lab.Guest, binary string, args ...string) (p passed) {
	t.Helper()
	const limit = 8 * time.Minute
	script := fmt.Sprintf(`
export ROAM_PACKETS=%d ROAM_TWINS=few
%s -test.v -test.timeout %v '%s' >/tmp/log 2>&1
status=$?
grep -c '^ *--- PASS' /tmp/log
grep '^ *--- SKIP' /tmp/log
[ $status = 0 ] || { echo; grep -v '^=== ' /tmp/log | grep -v '^ *--- PASS' | tail -60; }
exit $status`, modelFrames, binary, limit, strings.Join(args, "' '"))
	out, err := g.Try(limit+10*time.Second, script)
	if err != nil {
		t.Errorf("%s %s: %v\n%s", binary, strings.Join(args, " "), err, out)
		return p
	}
	count, skips, _ := strings.Cut(out, "\n")
	if p.Tests, err = strconv.Atoi(count); err != nil || p.Tests == 0 {
		t.Errorf("%s %s: no test ran\n%s", binary, strings.Join(args, " "), out)
	}
	for _, m := range skipped.FindAllStringSubmatch(skips, -1) {
		p.Skipped = append(p.Skipped, m[1])
	}
	return p
}

var skipped = regexp.MustCompile(`--- SKIP: (\S+)`)

// checkNetwork sends streams both ways, in both families and over both underlays, with small packets and full ones, and
// kills the daemon under them. Whatever the kernel resolves first is not counted.
func checkNetwork(t *testing.T, n *network) {
	t.Helper()
	for _, to := range farHost {
		n.Until(30*time.Second, "the host reaches "+to, func() error {
			out, err := n.host.Try("ping", "-n", "-c", "1", "-W", "1", to)
			if err != nil {
				err = fmt.Errorf("%w\n%s\n%v", err, out, n.counters())
			}
			return err
		})
	}
	before := n.counters()
	var flows []*lab.Flow
	for i, size := range [2]int{1472, 1452} { // of UDP payload, which fill the MTU
		for _, size := range []int{100, size} {
			flows = append(flows,
				n.Flow(n.host, addr(host[i]), n.far, addr(farHost[i]), 50, size),
				n.Flow(n.far, addr(farHost[i]), n.host, addr(host[i]), 50, size))
		}
	}
	lab.AwaitAll(flows, 50, 20*time.Second)
	n.gw.Run("kill -9 $(pidof roamd)")
	n.start()
	lab.AwaitAll(flows, 20, 20*time.Second)
	sent := 0
	for _, f := range flows {
		r := f.Stop()
		if r.Lost() != 0 || r.Duplicated != 0 || r.TTL != [2]int{63, 63} {
			t.Errorf("flow %s: %v, arrived with TTL %v", f, r, r.TTL)
		}
		sent += f.Sent()
	}
	moved := map[string]uint64{}
	for reason, count := range n.counters() {
		moved[reason] = count - before[reason]
		if strings.HasPrefix(reason, "drop_") && moved[reason] != 0 {
			t.Errorf("%d packets of %s", moved[reason], reason)
		}
	}
	if through := moved["fwd_encap"] + moved["fwd_deliver"]; through < uint64(sent) {
		t.Errorf("%d packets sent, %d forwarded by XDP: %v", sent, through, moved)
	}
}

// checkExplain wants an explanation, or the reason why this kernel gives none.
func checkExplain(t *testing.T, n *network) {
	t.Helper()
	out, err := n.ctl("explain " + host[0] + " " + farHost[0])
	if err == nil && strings.Contains(out, "fwd_encap") || err != nil && strings.Contains(out, "before Linux 5.15") {
		return
	}
	t.Errorf("explain: %v\n%s", err, out)
}
