package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"roam/lab"
)

// compare shows what a change did, with the confidence that benchstat finds in it. Against a commit, quick runs of both trees take turns,
// because runs of different hours on a shared machine say little about each other. Against a raw file, nothing is measured: the last
// result is read.
func compare(base, only, out string, times int) (err error) {
	dir, err := os.MkdirTemp("", "roam-compare-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if _, statErr := os.Stat(base); statErr == nil {
		now, err := openResult(out)
		if err != nil {
			return err
		}
		then, err := readResult(base)
		if err != nil {
			return err
		}
		return benchstat(dir, []*Result{then}, []*Result{now})
	}
	trees, remove, err := checkOut(dir, base)
	defer func() { err = errors.Join(err, remove()) }()
	if err != nil {
		return err
	}
	var results [2][]*Result
	for run := range times {
		for i, t := range trees {
			progress("run %d of %d: %s", run+1, times, t.name)
			r, err := t.run(filepath.Join(dir, fmt.Sprintf("%d-%d", i, run)), only)
			if err != nil {
				return err
			}
			results[i] = append(results[i], r)
		}
	}
	return benchstat(dir, results[0], results[1])
}

// tree is a state of the project with its benchmark built.
type tree struct{ name, dir, program string }

// checkOut builds the benchmarks of a commit, in a work tree of its own that remove takes away, and of the tree as it is.
func checkOut(dir, commit string) (trees []tree, remove func() error, err error) {
	there := filepath.Join(dir, "base")
	remove = func() error { return nil }
	if out, err := exec.Command("git", "-C", lab.Root(), "worktree", "add", "--detach", there, commit).CombinedOutput(); err != nil {
		return nil, remove, fmt.Errorf("%q is neither a raw file nor a commit: %s", commit, strings.TrimSpace(string(out)))
	}
	remove = func() error {
		return exec.Command("git", "-C", lab.Root(), "worktree", "remove", "--force", there).Run()
	}
	trees = []tree{{commit, there, filepath.Join(dir, "perf-base")}, {"this tree", lab.Root(), filepath.Join(dir, "perf-new")}}
	for _, t := range trees {
		build := exec.Command("go", "build", "-o", t.program, "./perf")
		build.Dir = t.dir
		if out, err := build.CombinedOutput(); err != nil {
			return nil, remove, fmt.Errorf("build the benchmark of %s: %w\n%s", t.name, err, out)
		}
	}
	return trees, remove, nil
}

// run measures a tree quickly. A tree from before there were parts measures all that it can.
func (t tree) run(out, only string) (*Result, error) {
	args := []string{"-quick", "-out", out}
	help, _ := exec.Command(t.program, "-help").CombinedOutput()
	if strings.Contains(string(help), "-only") {
		args = append(args, "-only", only)
	}
	measure := exec.Command(t.program, args...)
	measure.Dir = t.dir
	if said, err := measure.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("measure %s: %w\n%s", t.name, err, said)
	}
	files, err := filepath.Glob(filepath.Join(out, "*", "bench.json"))
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("measure %s: results in %q, %w", t.name, files, err)
	}
	return readResult(files[0])
}

func readResult(file string) (*Result, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read a result: %w", err)
	}
	r := &Result{}
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("read a result, %s: %w", file, err)
	}
	return r, nil
}

// benchstat prints what golang.org/x/perf makes of the two sides.
func benchstat(dir string, base, now []*Result) error {
	args := []string{"tool", "benchstat", "-ignore", "cpu,kernel,commit"}
	for name, results := range map[string][]*Result{"base": base, "new": now} {
		var text strings.Builder
		for _, r := range results {
			text.WriteString(r.lines())
		}
		if err := os.WriteFile(filepath.Join(dir, name+".txt"), []byte(text.String()), 0o644); err != nil {
			return fmt.Errorf("write benchmark lines: %w", err)
		}
	}
	stat := exec.Command("go", append(args, "base="+filepath.Join(dir, "base.txt"), "new="+filepath.Join(dir, "new.txt"))...)
	stat.Dir, stat.Stdout, stat.Stderr = lab.Root(), os.Stdout, os.Stderr
	if err := stat.Run(); err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	return nil
}
