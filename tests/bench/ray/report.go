package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Goals of the ratios.
const (
	goalDriver = 20  // of the geometric mean
	goalClient = 5   // of the geometric mean
	goalCase   = 1.5 // of each
	goalGiB    = 1.0 // of each that counts bytes
)

// row is a case, as a mean over rounds.
type row struct {
	name                string
	ray, driver, client mean
}

// mean is that of a case over the rounds, and the mean of the spreads.
type mean struct {
	rate, spread float64
	n            int
}

func (m *mean) add(l line) {
	n := float64(m.n)
	m.rate, m.spread = (m.rate*n+l.Rate)/(n+1), (m.spread*n+l.Spread)/(n+1)
	m.n++
}

// report is what was measured.
type report struct {
	machine machine
	rows    []row
	rounds  int
}

func newReport(lines []line, m machine) *report {
	r := &report{machine: m}
	for _, name := range rayCases {
		w := row{name: name}
		for _, l := range lines {
			if l.Case != name {
				continue
			}
			switch l.By {
			case byRay:
				w.ray.add(l)
			case byDriver:
				w.driver.add(l)
			case byClient:
				w.client.add(l)
			}
		}
		if w.ray.n > 0 && w.driver.n > 0 && w.client.n > 0 {
			r.rows = append(r.rows, w)
			r.rounds = max(r.rounds, w.ray.n)
		}
	}
	return r
}

// means returns the geometric means of the ratios.
func (r *report) means() (driver, client float64) {
	for _, w := range r.rows {
		driver += math.Log(w.driver.rate / w.ray.rate)
		client += math.Log(w.client.rate / w.ray.rate)
	}
	n := float64(len(r.rows))
	return math.Exp(driver / n), math.Exp(client / n)
}

// misses says what is below its goal.
func (r *report) misses() []string {
	var list []string
	d, c := r.means()
	if d < goalDriver {
		list = append(list, fmt.Sprintf("the geometric mean of the driver in a sandbox is %.1f: the goal is %d", d, goalDriver))
	}
	if c < goalClient {
		list = append(list, fmt.Sprintf("the geometric mean of the native client is %.1f: the goal is %d", c, goalClient))
	}
	for _, w := range r.rows {
		goal := goalCase
		if inGiB(w.name) {
			goal = goalGiB
		}
		for _, o := range []struct {
			who string
			m   mean
		}{{"the driver in a sandbox", w.driver}, {"the native client", w.client}} {
			if x := o.m.rate / w.ray.rate; x < goal {
				list = append(list, fmt.Sprintf("`%s` by %s reaches %.2f times Ray's: the goal is %.1f", w.name, o.who, x, goal))
			}
		}
	}
	return list
}

// unit is what a case counts.
func unit(name string) string {
	switch {
	case inGiB(name):
		return "GiB"
	case strings.Contains(name, "batch"), strings.Contains(name, "wait"):
		return "batch"
	case strings.Contains(name, "task"):
		return "task"
	case strings.Contains(name, "actor"):
		return "call"
	case strings.Contains(name, "put"):
		return "put"
	}
	return "get"
}

// String is the report for a terminal.
func (r *report) String() string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "case\ta second\tRay\t+-\tdriver\tratio\tclient\tratio\t")
	for _, c := range r.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.1f\t%s\t%.1f\t\n", c.name, unit(c.name), figure(c.ray.rate), figure(c.ray.spread),
			figure(c.driver.rate), c.driver.rate/c.ray.rate, figure(c.client.rate), c.client.rate/c.ray.rate)
	}
	_ = w.Flush()
	d, c := r.means()
	fmt.Fprintf(&b, "geometric means: driver in a sandbox %.1f, native client %.1f\n", d, c)
	for _, m := range r.misses() {
		fmt.Fprintln(&b, "below its goal:", m)
	}
	return b.String()
}

// markdown is the report for the file.
func (r *report) markdown() string {
	var b strings.Builder
	m := r.machine
	fmt.Fprintf(&b, "Ray %s (%s) and wray %s; %s, %d cores, %.0f GiB of memory, Linux %s; rounds in turn: %d.\n\n",
		m.Ray, m.Python, m.Wray, m.CPU, m.Cores, m.MemoryGiB, m.Kernel, r.rounds)
	b.WriteString("| case | a second | Ray | driver in a sandbox | ratio | native client | ratio |\n|---|---|---|---|---|---|---|\n")
	for _, c := range r.rows {
		fmt.Fprintf(&b, "| %s | %s | %s ±%s | %s | %.1f | %s | %.1f |\n", c.name, unit(c.name), figure(c.ray.rate), figure(c.ray.spread),
			figure(c.driver.rate), c.driver.rate/c.ray.rate, figure(c.client.rate), c.client.rate/c.ray.rate)
	}
	d, c := r.means()
	fmt.Fprintf(&b, "| **geometric mean** of %d | | | | **%.1f** | | **%.1f** |\n", len(r.rows), d, c)
	if list := r.misses(); len(list) > 0 {
		b.WriteString("\nBelow its goal:\n\n")
		for _, m := range list {
			fmt.Fprintf(&b, "- %s\n", m)
		}
	}
	return b.String()
}

// Marks in the file, between which the table is.
const (
	from = "<!-- measured: written by make bench-ray -->\n"
	to   = "<!-- end of what was measured -->\n"
)

// writeInto puts the table in place of the one that a file has. A file without
// the marks is an error: it may be another.
func (r *report) writeInto(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	text, err := r.replace(string(b))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.WriteFile(name, []byte(text), 0o644)
}

func (r *report) replace(text string) (string, error) {
	before, rest, ok := strings.Cut(text, from)
	_, after, ok2 := strings.Cut(rest, to)
	if !ok || !ok2 {
		return "", fmt.Errorf("it lacks the lines %q and %q, between which the table is to be", strings.TrimSpace(from), strings.TrimSpace(to))
	}
	return before + from + "\n" + r.markdown() + "\n" + to + after, nil
}

// figure writes a number with the digits that mean something.
func figure(x float64) string {
	digits := 2
	switch {
	case x >= 1000:
		s := strconv.Itoa(int(math.Round(x)))
		for at := len(s) - 3; at > 0; at -= 3 {
			s = s[:at] + "," + s[at:]
		}
		return s
	case x >= 100:
		digits = 0
	case x >= 10:
		digits = 1
	}
	return strconv.FormatFloat(x, 'f', digits, 64)
}
