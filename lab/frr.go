package lab

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

// FRR is a routing suite in a namespace: zebra, and bgpd, bfdd or staticd.
type FRR struct {
	*Namespace
	BGP, BFD, Zebra *Process

	dir string
}

// FRR starts zebra and bgpd. zebra and bgp are the lines of their configurations. BFD may join them: see StartBFD.
func (n *Namespace) FRR(zebra, bgp string) *FRR {
	n.lab.Helper()
	f := n.newFRR(map[string]string{"zebra": zebra, "bgpd": bgp, "bfdd": ""})
	f.StartBGP()
	return f
}

// FRRStatic starts zebra and staticd, with the lines of its configuration.
func (n *Namespace) FRRStatic(static string) *FRR {
	n.lab.Helper()
	f := n.newFRR(map[string]string{"zebra": "", "staticd": static})
	f.daemon("staticd")
	f.answers("staticd", "show version")
	return f
}

// FRRBFD starts zebra and bfdd, with the lines of its configuration.
func (n *Namespace) FRRBFD(bfd string) *FRR {
	n.lab.Helper()
	f := n.newFRR(map[string]string{"zebra": "", "bfdd": bfd})
	f.StartBFD()
	return f
}

// newFRR writes the daemons' configurations and starts zebra.
func (n *Namespace) newFRR(configs map[string]string) *FRR {
	n.lab.Helper()
	f := &FRR{Namespace: n, dir: filepath.Join(n.lab.Dir, n.Name+"-frr")}
	// The daemons give up root, so their folder is their own, and they must get to it.
	n.lab.must(os.Chmod(n.lab.Dir, 0o711), "open the lab's folder to FRR")
	n.lab.must(os.Mkdir(f.dir, 0o700), "make FRR's folder")
	owner, err := user.Lookup("frr")
	n.lab.must(err, "find FRR's user")
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)
	n.lab.must(os.Chown(f.dir, uid, gid), "give FRR its folder")
	for name, text := range configs {
		file := filepath.Join(f.dir, name+".conf")
		n.lab.must(os.WriteFile(file, []byte(text+"\n"), 0o600), "write FRR's configuration")
		n.lab.must(os.Chown(file, uid, gid), "give FRR its configuration")
	}
	f.Zebra = f.daemon("zebra")
	n.lab.Until(10*time.Second, "zebra listens", func() error {
		_, err := os.Stat(filepath.Join(f.dir, "zserv"))
		return err
	})
	return f
}

// StartBGP starts bgpd, again after it was ended, and waits until it answers.
func (f *FRR) StartBGP() {
	f.lab.Helper()
	f.BGP = f.daemon("bgpd")
	f.answers("bgpd", "show bgp summary")
}

// StartBFD starts bfdd and waits until it answers.
func (f *FRR) StartBFD() {
	f.lab.Helper()
	f.BFD = f.daemon("bfdd", "--bfdctl", filepath.Join(f.dir, "bfdd.sock"))
	f.answers("bfdd", "show bfd peers")
}

// answers waits until a daemon has something to say.
func (f *FRR) answers(name, command string) {
	f.lab.Helper()
	f.lab.Until(10*time.Second, name+" answers", func() error {
		_, err := f.Try("vtysh", "--vty_socket", f.dir, "-d", name, "-c", command)
		return err
	})
}

func (f *FRR) daemon(name string, options ...string) *Process {
	f.lab.Helper()
	at := func(file string) string { return filepath.Join(f.dir, file) }
	return f.Start("/usr/lib/frr/"+name, append([]string{
		"-f", at(name + ".conf"), "-i", at(name + ".pid"), "-z", at("zserv"),
		"--vty_socket", f.dir, "-P", "0", "--log", "stdout",
	}, options...)...)
}

// Show runs commands of FRR's shell and returns what they print.
func (f *FRR) Show(commands ...string) string {
	f.lab.Helper()
	args := []string{"--vty_socket", f.dir}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	return f.Run("vtysh", args...)
}
