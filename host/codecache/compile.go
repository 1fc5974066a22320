package codecache

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Names of what a compiler leaves in its directory.
const (
	artifactFile = "artifact" // one file
	nativeDir    = "native"   // the engine's cache directory, with one entry
)

// What a compiler may leave. Native code takes 3 to 6 times its module.
const (
	maxNative   = 1 << 30
	maxArtifact = 256 << 20
)

// compile compiles a module in a process of its own and keeps the result, or
// that it was refused. A compiler that was killed from outside is followed by one
// more. The caller holds the unit's lock.
func (c *Cache) compile(ctx context.Context, u unit, module []byte) (Entry, error) {
	e, killed, err := c.compileOnce(ctx, u, module)
	if killed && ctx.Err() == nil {
		e, _, err = c.compileOnce(ctx, u, module)
	}
	return e, err
}

func (c *Cache) compileOnce(ctx context.Context, u unit, module []byte) (e Entry, killed bool, err error) {
	out, err := os.MkdirTemp(u.dir, "compile-")
	if err != nil {
		return e, false, fmt.Errorf("compile: %w", err)
	}
	defer os.RemoveAll(out)
	if c.watch.compiling != nil {
		c.watch.compiling(out)
	}
	if v := c.cfg.Compiler.run(ctx, module, out); v.err != nil {
		if v.refused != nil {
			m := c.manifestOf(u)
			m.Refused, m.Program = v.refused, c.program
			if err := c.writeManifest(u, m); err != nil {
				return e, false, err
			}
		}
		return e, v.killed, v.err
	}
	e, err = c.install(u, out)
	return e, false, err
}

// install moves what a compiler left into the cache. The compiler is dead, so
// nothing changes between a look and the next.
func (c *Cache) install(u unit, out string) (Entry, error) {
	native, err := oneEntry(filepath.Join(out, nativeDir))
	if err != nil {
		return Entry{}, err
	}
	m := c.manifestOf(u)
	m.Native = native
	e := Entry{CacheDir: u.dir, NativePath: filepath.Join(u.dir, native), ArtifactPath: u.artifact(), Module: u.module}
	if err := os.MkdirAll(filepath.Dir(e.NativePath), 0o700); err != nil {
		return Entry{}, fmt.Errorf("keep compiled code: %w", err)
	}
	for _, f := range []struct {
		from, to string
		max      int64
		hash     *string
	}{
		{filepath.Join(out, nativeDir, native), e.NativePath, maxNative, &m.NativeHash},
		{filepath.Join(out, artifactFile), e.ArtifactPath, maxArtifact, &m.ArtifactHash},
	} {
		if err := regular(f.from, f.max); err != nil {
			return Entry{}, err
		}
		if *f.hash, err = hashFile(f.from); err != nil {
			return Entry{}, fmt.Errorf("keep compiled code: %w", err)
		}
		// Units whose rewritten modules are equal share native code. Where what
		// is there differs, it was damaged, or a compiler lied about the name:
		// then its manifest no longer fits, and that unit is compiled again.
		if err := os.Rename(f.from, f.to); err != nil {
			return Entry{}, fmt.Errorf("keep compiled code: %w", err)
		}
	}
	// Last: until it is there the rest is garbage, which trim removes.
	return e, c.writeManifest(u, m)
}

// regular checks that a path is a file of its own, and not too large.
func regular(path string, max int64) error {
	st, err := os.Lstat(path)
	switch {
	case err != nil:
		return fmt.Errorf("the compiler left no %s", filepath.Base(path))
	case !st.Mode().IsRegular():
		return fmt.Errorf("the compiler left %s as %v", filepath.Base(path), st.Mode().Type())
	case links(st) > 1:
		// Under its other name it would be changed by whoever owns that.
		return fmt.Errorf("the compiler left a file with %d names as %s", links(st), filepath.Base(path))
	case st.Size() > max:
		return fmt.Errorf("the compiler left %d bytes as %s, at most %d", st.Size(), filepath.Base(path), max)
	}
	return nil
}

// oneEntry returns the one file below the engine's cache directory that a
// compiler has filled, as a path below it. Anything else there is refused: the
// process that wrote it has read a stranger's bytes.
func oneEntry(dir string) (string, error) {
	found := ""
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() || !nativeName.MatchString(filepath.ToSlash(rel)) {
			return fmt.Errorf("the compiler left %q", rel)
		}
		if found != "" {
			return fmt.Errorf("the compiler left both %q and %q", found, rel)
		}
		found = rel
		return nil
	})
	switch {
	case err != nil:
		return "", fmt.Errorf("look at compiled code: %w", err)
	case found == "":
		return "", fmt.Errorf("the compiler left no code")
	}
	return found, nil
}
