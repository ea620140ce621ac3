package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Binaries are the programs under test.
type Binaries struct {
	Daemon string // roamd
	Ctl    string // roamctl
}

// In names the programs in a folder, such as the one `make build` fills.
func In(dir string) Binaries {
	return Binaries{Daemon: filepath.Join(dir, "roamd"), Ctl: filepath.Join(dir, "roamctl")}
}

// Check reports a program that is missing.
func (b Binaries) Check() error {
	for _, path := range []string{b.Daemon, b.Ctl} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("find the programs under test: %w (run: make build)", err)
		}
	}
	return nil
}

// Build compiles both programs into a folder, as version: versions differ in content, which is what an upgrade
// needs. flags are for the compiler.
func Build(dir, version string, flags ...string) (Binaries, error) {
	bins := In(dir)
	for path, pkg := range map[string]string{bins.Daemon: "roam/loader", bins.Ctl: "roam/ctl"} {
		args := append([]string{"build", "-ldflags", "-X main.version=" + version, "-o", path}, flags...)
		cmd := exec.Command("go", append(args, pkg)...)
		cmd.Dir = Root()
		if out, err := cmd.CombinedOutput(); err != nil {
			return bins, fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	return bins, nil
}
