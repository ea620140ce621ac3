package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine says what figures belong to, and nothing that names one machine among its kind.
type Machine struct {
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	L2     string `json:"l2"`
	L3     string `json:"l3"`
	Virt   bool   `json:"virtual"`
	Kernel string `json:"kernel"` // major.minor.patch
	Commit string `json:"commit"` // of this project, "+" where the tree was changed; of the last run
}

func thisMachine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), L2: cacheSize(2), L3: cacheSize(3), Commit: commit()}
	info, _ := os.ReadFile("/proc/cpuinfo")
	m.Virt = strings.Contains(string(info), " hypervisor ")
	m.CPU = cpuName(string(info))
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		m.Kernel = regexp.MustCompile(`^[0-9.]+`).FindString(unix.ByteSliceToString(uts.Release[:]))
	}
	return m
}

// cpuName is the model name with family and model number, because virtual machines often hide the rest.
func cpuName(info string) string {
	field := func(name string) string {
		m := regexp.MustCompile(`(?m)^` + name + `\s*: (.*)$`).FindStringSubmatch(info)
		if m == nil {
			return ""
		}
		return m[1]
	}
	if field("model name") == "" {
		return runtime.GOARCH
	}
	return fmt.Sprintf("%s (family %s, model %s)", field("model name"), field("cpu family"), field("model"))
}

func cacheSize(level int) string {
	for i := range 8 {
		dir := fmt.Sprintf("/sys/devices/system/cpu/cpu0/cache/index%d/", i)
		if l, err := os.ReadFile(dir + "level"); err == nil && strings.TrimSpace(string(l)) == fmt.Sprint(level) {
			size, _ := os.ReadFile(dir + "size")
			return strings.TrimSpace(string(size))
		}
	}
	return "?"
}

func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// name is a folder for the results of machines of one kind.
func (m Machine) name() string {
	s := strings.ToLower(fmt.Sprintf("%s %d cpus linux %s", m.CPU, m.CPUs, m.Kernel))
	return strings.Trim(regexp.MustCompile(`[^a-z0-9.]+`).ReplaceAllString(s, "-"), "-")
}
