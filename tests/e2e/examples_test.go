package e2e

import (
	"image/png"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestPi(t *testing.T) {
	r := run(t, "", "run", "./examples/pi")
	m := regexp.MustCompile(`3\.\d+`).FindString(r.stdout)
	if v, _ := strconv.ParseFloat(m, 64); r.code != 0 || math.Abs(v-math.Pi) > 0.02 {
		t.Errorf("%+v", r)
	}
}

func TestMandelbrot(t *testing.T) {
	dir := t.TempDir()
	r := run(t, "", "run", "./examples/mandelbrot", "--dir", dir+":/out", "--", "-size", "320x200")
	if r.code != 0 {
		t.Fatalf("%+v", r)
	}
	f, err := os.Open(filepath.Join(dir, "mandelbrot.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	colours := map[any]bool{}
	for x := range img.Bounds().Dx() {
		colours[img.At(x, img.Bounds().Dy()/3)] = true
	}
	if len(colours) < 10 {
		t.Errorf("%v has %d colours in a row", img.Bounds(), len(colours))
	}
}

func TestGridsearch(t *testing.T) {
	r := run(t, "", "run", "./examples/gridsearch")
	if r.code != 0 || !strings.Contains(r.stdout, "25") || !regexp.MustCompile(`x\s*=\s*0\b.*y\s*=\s*0\b`).MatchString(r.stdout) {
		t.Errorf("%+v", r)
	}
}
