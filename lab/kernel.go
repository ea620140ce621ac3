package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Kernel is a Debian kernel for guests: the cloud flavour, small and with every tunnel device as a module.
type Kernel struct {
	Release string // as `uname -r` says
	dir     string // vmlinuz, lib/modules/RELEASE
}

// kernelSuites are the Debian suites that together hold the kernels worth testing on.
var kernelSuites = []string{"bullseye-security", "bookworm", "trixie", "trixie-backports"}

// FetchKernel returns the newest kernel of a line, such as "5.10" or "7", from bin/kernels or else from Debian. Not safe for
// concurrent use, be it by several processes.
func FetchKernel(line string) (Kernel, error) {
	cache := filepath.Join(Root(), "bin", "kernels")
	held, _ := filepath.Glob(filepath.Join(cache, "*", "vmlinuz"))
	for i := range held {
		held[i] = filepath.Base(filepath.Dir(held[i]))
	}
	if release := newest(line, held); release != "" {
		return Kernel{release, filepath.Join(cache, release)}, nil
	}
	k, err := downloadKernel(line, cache)
	if err != nil {
		return k, fmt.Errorf("fetch a kernel %s: %w", line, err)
	}
	return k, nil
}

// newest picks the highest release of a line, by the numbers in it: 6.1.0-50 is above 6.1.0-47 and not in line 6.
func newest(line string, releases []string) string {
	var best string
	for _, r := range releases {
		if strings.HasPrefix(r, line+".") && (best == "" || Newer(r, best)) {
			best = r
		}
	}
	return best
}

// Newer compares two releases or lines, such as "6.0", by their numbers.
func Newer(a, b string) bool { return slices.Compare(numbers(a), numbers(b)) > 0 }

var digits = regexp.MustCompile(`[0-9]+`)

func numbers(s string) (list []int) {
	for _, d := range digits.FindAllString(s, -1) {
		n, _ := strconv.Atoi(d)
		list = append(list, n)
	}
	return list
}

// Names change with every update, and from 7.0 on the image, its modules and their lists are packages of their own.
var kernelPackage = regexp.MustCompile(`(?m)^linux-(?:image|binary|modules|base)-([0-9]+\.[0-9]+\.[0-9]\S*-cloud-amd64) `)

func downloadKernel(line, cache string) (Kernel, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Kernel{}, err
	}
	work, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		return Kernel{}, err
	}
	defer os.RemoveAll(work)
	apt, err := newAptFolder(filepath.Join(work, "apt"))
	if err != nil {
		return Kernel{}, err
	}
	if _, err := apt.run("apt-get", "update", "-qq"); err != nil {
		return Kernel{}, err
	}
	names, err := apt.run("apt-cache", "search", "--names-only", `^linux-(image|binary|modules|base)-`+regexp.QuoteMeta(line)+`\.`)
	if err != nil {
		return Kernel{}, err
	}
	packages := map[string][]string{} // by release
	var releases []string
	for _, m := range kernelPackage.FindAllStringSubmatch(names, -1) {
		packages[m[1]] = append(packages[m[1]], strings.TrimSpace(m[0]))
		releases = append(releases, m[1])
	}
	k := Kernel{Release: newest(line, releases)}
	if k.Release == "" {
		return k, fmt.Errorf("the suites %s have none", strings.Join(kernelSuites, ", "))
	}
	if _, err := apt.run("apt-get", append([]string{"download", "-qq"}, packages[k.Release]...)...); err != nil {
		return k, err
	}
	unpacked := filepath.Join(work, "unpacked")
	if err := unpackKernel(apt.dir, unpacked, k.Release); err != nil {
		return k, err
	}
	k.dir = filepath.Join(cache, k.Release)
	return k, os.Rename(unpacked, k.dir)
}

// unpackKernel unpacks the packages in a folder and keeps the image, and the modules where the module tools look for them.
func unpackKernel(debs, to, release string) error {
	list, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	raw := to + ".raw"
	for _, deb := range list {
		if _, err := command("", nil, "dpkg-deb", "-x", deb, raw); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(to, "lib/modules"), 0o755); err != nil {
		return err
	}
	modules := filepath.Join(to, "lib/modules", release)
	if err := moveFirst(modules, filepath.Join(raw, "lib/modules", release), filepath.Join(raw, "usr/lib/modules", release)); err != nil {
		return err
	}
	if _, err := command("", nil, "depmod", "-b", to, release); err != nil {
		return err
	}
	return moveFirst(filepath.Join(to, "vmlinuz"), filepath.Join(raw, "boot/vmlinuz-"+release), filepath.Join(modules, "vmlinuz"))
}

// moveFirst moves the first of the candidates that exists.
func moveFirst(to string, candidates ...string) error {
	for _, from := range candidates {
		if err := os.Rename(from, to); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fmt.Errorf("the package holds none of %q", candidates)
}

// aptFolder is a package index of our own, which leaves the system's alone.
type aptFolder struct {
	dir string
	env []string
}

func newAptFolder(dir string) (aptFolder, error) {
	a := aptFolder{dir, []string{"APT_CONFIG=" + filepath.Join(dir, "apt.conf")}}
	sources, err := debianSources()
	if err != nil {
		return a, err
	}
	for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return a, err
		}
	}
	conf := fmt.Sprintf(`Dir::State::lists "%[1]s/lists";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache";
Dir::Etc::sourcelist "%[1]s/sources.list";
Dir::Etc::sourceparts "-";
APT::Architecture "amd64";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
`, dir)
	return a, errors.Join(
		os.WriteFile(filepath.Join(dir, "apt.conf"), []byte(conf), 0o644),
		os.WriteFile(filepath.Join(dir, "sources.list"), []byte(sources), 0o644),
		os.WriteFile(filepath.Join(dir, "status"), nil, 0o644),
	)
}

func (a aptFolder) run(name string, args ...string) (string, error) {
	return command(a.dir, a.env, name, args...)
}

// debianSources names the suites at the mirrors that this system uses itself.
func debianSources() (string, error) {
	uris, err := command("", nil, "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
	if err != nil {
		return "", err
	}
	var mirror, security string
	for uri := range strings.FieldsSeq(uris) {
		switch {
		case strings.Contains(uri, "/debian-security/"):
			security = uri
		case strings.Contains(uri, "/debian/"):
			mirror = uri
		}
	}
	if env := os.Getenv("DEBIAN_MIRROR"); env != "" {
		mirror, security = env, strings.TrimSuffix(env, "/")+"-security"
	}
	if mirror == "" || security == "" {
		return "", fmt.Errorf("this system has no Debian mirror in its package sources: set DEBIAN_MIRROR to the address of one")
	}
	var list strings.Builder
	for _, suite := range kernelSuites {
		uri := mirror
		if strings.HasSuffix(suite, "-security") {
			uri = security
		}
		fmt.Fprintf(&list, "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", uri, suite)
	}
	return list.String(), nil
}

// modules lists the files of modules and of what they need, in the order in which to load them. What is built in needs no file.
func (k Kernel) modules(names ...string) (files []string, err error) {
	for _, name := range names {
		out, err := command("", nil, "modprobe", "-d", k.dir, "-S", k.Release, "--show-depends", name)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			if path, ok := strings.CutPrefix(strings.TrimSpace(line), "insmod "); ok && !slices.Contains(files, path) {
				files = append(files, path)
			}
		}
	}
	return files, nil
}

// command runs a program in a folder and returns what it printed; an error holds what it said.
func command(dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", cmd, err, out.Bytes(), errs.Bytes())
	}
	return out.String(), nil
}
