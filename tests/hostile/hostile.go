// Package hostile is a corpus of modules that mean harm: each breaks a rule,
// wastes what is shared, or does what programs must not. Every claim that a
// guest cannot crash, stall or read outside its tenant is tested against it.
// The modules are assembled here byte by byte, so the corpus needs no
// toolchain and says exactly what is in it.
//
// The tests of this package hold what can be said without a sandbox: that
// wrong modules are refused at once and for nothing, and that the others are
// valid modules, so that what stops them must be the sandbox.
package hostile

import "github.com/wray-project/wray"

// Stage is the first part of the platform that must stop a module.
type Stage int

const (
	// Admit refuses the module before anything else looks at it.
	Admit Stage = iota
	// Compile refuses it, or is killed over it without harm to others.
	Compile
	// Run starts it and deals with what it does.
	Run
)

// String returns the stage's name.
func (s Stage) String() string { return [...]string{"admit", "compile", "run"}[s] }

// Case is one hostile module.
type Case struct {
	Name  string
	Stage Stage
	// Wasm builds the module, a new copy each time.
	Wasm func() []byte
	// Want is how a run must end at the caller; CodeOK where the module tries
	// something, finds that it cannot, and ends well. A module that gets what
	// it must not exits with Escaped.
	Want wray.Code
	// Or are other codes that are as good.
	Or []wray.Code
	// Exit is the exit code that comes with CodeExit.
	Exit int
	// TailCalls says that the module is invalid unless tail calls are enabled.
	TailCalls bool
	// Doc says what the module does and what a host gets wrong.
	Doc string
}

// Escaped is the exit code of a module that got what it must not get.
const Escaped = 66

// Accepts reports whether code is an end that c allows.
func (c *Case) Accepts(code wray.Code) bool {
	if code == c.Want {
		return true
	}
	for _, o := range c.Or {
		if code == o {
			return true
		}
	}
	return false
}

// Cases returns the corpus, in order of stages. Names are unique.
func Cases() []Case {
	var all []Case
	for _, part := range []struct {
		stage Stage
		cases []Case
	}{
		{Admit, countCases()},
		{Admit, formatCases()},
		{Admit, refusedCases()},
		{Admit, limitCases()},
		{Compile, invalidCases()},
		{Compile, bombCases()},
		{Run, loopCases()},
		{Run, recursionCases()},
		{Run, memoryCases()},
		{Run, trapCases()},
		{Run, hostCallCases()},
		{Run, callCases()},
		{Run, initCases()},
		{Run, entryCases()},
		{Run, garbageCases()},
		{Run, fileCases()},
		{Run, knownCases()},
	} {
		for _, c := range part.cases {
			c.Stage = part.stage
			all = append(all, c)
		}
	}
	return all
}

// always returns a builder of fixed bytes.
func always(b []byte) func() []byte {
	return func() []byte { return append([]byte(nil), b...) }
}
