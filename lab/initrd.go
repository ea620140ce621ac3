package lab

import (
	"bytes"
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
)

//go:embed init.sh
var initScript []byte

// writeInitrd writes a guest's whole file system, in which everything stands where it stands here: programs with the
// libraries they are linked to, and files. Modules are loaded by /init in the order given. The archive is not compressed: an
// emulated processor takes longer to unpack it than the disk to read it.
func writeInitrd(to string, k Kernel, modules, programs, files []string) error {
	archive := cpio{have: map[string]bool{".": true}}
	list, err := k.modules(modules...)
	if err != nil {
		return err
	}
	for i, module := range list {
		content, err := readModule(module)
		if err != nil {
			return err
		}
		archive.file(fmt.Sprintf("modules/%03d-%s", i, strings.TrimSuffix(path.Base(module), ".xz")), 0o600, content)
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	archive.file("bin/busybox", 0o755, busybox)
	archive.file("init", 0o755, initScript)
	for _, name := range append([]string{"/bin/sh"}, programs...) {
		linked, err := closure(name)
		if err != nil {
			return err
		}
		files = append(files, linked...)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		archive.file(strings.TrimPrefix(file, "/"), 0o755, content)
	}
	return archive.write(to)
}

// readModule returns a module as the kernel takes it.
func readModule(file string) ([]byte, error) {
	if strings.HasSuffix(file, ".xz") {
		out, err := command("", nil, "xz", "-dc", file)
		return []byte(out), err
	}
	return os.ReadFile(file)
}

var library = regexp.MustCompile(`(?m)(/\S+) \(0x`)

// closure is a program of this machine with the libraries it is linked to.
func closure(name string) ([]string, error) {
	program, err := exec.LookPath(name)
	if err != nil {
		return nil, err
	}
	files := []string{program}
	out, err := exec.Command("ldd", program).Output() // fails for a static one
	if err != nil {
		return files, nil
	}
	for _, m := range library.FindAllStringSubmatch(string(out), -1) {
		files = append(files, m[1])
	}
	return files, nil
}

// cpio is an archive in the "newc" format, which the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpio struct {
	out  bytes.Buffer
	have map[string]bool // directories and files so far
}

func (c *cpio) file(name string, mode fs.FileMode, content []byte) {
	if c.have[name] {
		return
	}
	var missing []string
	for dir := path.Dir(name); !c.have[dir]; dir = path.Dir(dir) {
		missing = append(missing, dir)
		c.have[dir] = true
	}
	for _, dir := range slices.Backward(missing) {
		c.entry(dir, 0o040755, nil)
	}
	c.have[name] = true
	c.entry(name, 0o100000|uint32(mode), content)
}

func (c *cpio) entry(name string, mode uint32, content []byte) {
	const device, links, checksum = 0, 1, 0
	fields := []uint32{uint32(len(c.have)), mode, 0, 0, links, 0, uint32(len(content)), device, device, device, device, uint32(len(name) + 1), checksum}
	c.out.WriteString("070701")
	for _, f := range fields {
		fmt.Fprintf(&c.out, "%08x", f)
	}
	c.out.WriteString(name + "\x00")
	c.pad()
	c.out.Write(content)
	c.pad()
}

func (c *cpio) pad() {
	for c.out.Len()%4 != 0 {
		c.out.WriteByte(0)
	}
}

func (c *cpio) write(to string) error {
	c.entry("TRAILER!!!", 0, nil)
	return os.WriteFile(to, c.out.Bytes(), 0o600)
}
