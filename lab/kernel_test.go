package lab

import "testing"

// Names of kernels compare by their numbers, and a line is not the start of another one.
func TestNewestKernel(t *testing.T) {
	releases := []string{
		"5.10.0-46-cloud-amd64", "6.1.0-9-cloud-amd64", "6.1.0-50-cloud-amd64", "6.12.117+deb13-cloud-amd64",
		"6.12.99+deb13-cloud-amd64", "7.0.13+deb13-cloud-amd64", "7.1.3+deb13-cloud-amd64",
	}
	for line, want := range map[string]string{
		"5.10": releases[0], "6.1": releases[2], "6.12": releases[3], "7": releases[6], "7.0": releases[5], "5.1": "", "8": "",
	} {
		if got := newest(line, releases); got != want {
			t.Errorf("the newest of %s is %q, want %q", line, got, want)
		}
	}
}
