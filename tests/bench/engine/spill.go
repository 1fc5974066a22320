package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/spill"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

const (
	caseSpill      = "spill, objects moved to disk"
	caseSpillPlain = "spill, plain writes beside it"
	caseSpillRatio = "spill, objects moved over plain writes"
	caseSynced     = "spill, objects moved to disk and synced"
	caseSyncPlain  = "spill, plain writes and a sync beside it"
	caseSyncRatio  = "spill, objects moved and synced over plain writes and a sync"
	caseBack       = "spill, objects read back"
	caseBackPlain  = "spill, plain reads beside it"
	caseBackRatio  = "spill, objects read back over plain reads"
)

const (
	spillObject  = 4 << 20
	spillStore   = 128 << 20 // the store that is filled first
	spillFile    = 64 << 20  // of a plain file, which is what the store writes at once
	spillPlainAt = 1 << 20   // at once, as in dd bs=1M
)

// spilling measures how fast a store moves objects to disk that nothing
// shrinks, and reads them back, in turn with writes and reads of files that are
// opened in the same way in the same place, and without O_DIRECT, as with
// "dd bs=1M"; the synced cases are as with conv=fdatasync: all is on the disk
// when they end.
func spilling(ctx context.Context, c *Config) error {
	if !c.wants(caseSpill, caseSpillPlain, caseSpillRatio, caseSynced, caseSyncPlain, caseSyncRatio, caseBack, caseBackPlain, caseBackRatio) {
		return nil
	}
	total := int64(512 << 20)
	if c.Round < time.Second {
		total = spillStore
	}
	open, err := spill.OpenDir(filepath.Join(c.Cache, "spill"))
	if err != nil {
		return err
	}
	if dir := open.Name(); spill.InMemory(dir) {
		c.Note("the cases about spilling write to " + dir + ", which lies in memory: name another cache directory with WRAY_CACHE")
	}
	data := make([]byte, spillObject)
	fill := rand.NewChaCha8([32]byte{1})
	_, _ = fill.Read(data) // never fails
	var out, plainOut, outRatio, synced, plainSynced, syncRatio, back, plainBack, backRatio []float64
	for i := range c.Rounds {
		var us, them spillRates
		ours := func() (err error) { us, err = spillObjects(ctx, open, data, total); return err }
		plain := func() (err error) { them, err = plainFiles(open, data, total); return err }
		first, second := ours, plain
		if i%2 == 1 { // who goes second may find what the first left to be written
			first, second = plain, ours
		}
		if err := errors.Join(first(), second()); err != nil {
			return err
		}
		out, plainOut, outRatio = append(out, us.out), append(plainOut, them.out), append(outRatio, us.out/them.out)
		synced, plainSynced, syncRatio = append(synced, us.synced), append(plainSynced, them.synced), append(syncRatio, us.synced/them.synced)
		back, plainBack, backRatio = append(back, us.back), append(plainBack, them.back), append(backRatio, us.back/them.back)
	}
	return errors.Join(c.emit(caseSpill, "MiB/s", out), c.emit(caseSpillPlain, "MiB/s", plainOut), c.emit(caseSpillRatio, "x", outRatio),
		c.emit(caseSynced, "MiB/s", synced), c.emit(caseSyncPlain, "MiB/s", plainSynced), c.emit(caseSyncRatio, "x", syncRatio),
		c.emit(caseBack, "MiB/s", back), c.emit(caseBackPlain, "MiB/s", plainBack), c.emit(caseBackRatio, "x", backRatio))
}

// spillRates are what one run reaches, in MiB/s: written, written and synced, and
// read back.
type spillRates struct{ out, synced, back float64 }

// syncedDir is a directory whose batches are synced when asked for.
type syncedDir struct {
	*spill.Dir
	mu    sync.Mutex
	files []*os.File // guarded by mu
}

// Create implements spill.Place.
func (d *syncedDir) Create(n int64) (spill.Pen, error) {
	p, err := d.Dir.Create(n)
	if err != nil {
		return nil, err
	}
	f, err := p.File()
	if err != nil {
		p.Remove()
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files = append(d.files, f)
	return p, nil
}

// sync returns when all batches are on the disk.
func (d *syncedDir) sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return syncAll(d.files)
}

func (d *syncedDir) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.files {
		_ = f.Close() // it was only to be synced
	}
}

func syncAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Sync())
	}
	return errors.Join(errs...)
}

// mibs returns the rate of n bytes since begin, in MiB/s.
func mibs(n int64, begin time.Time) float64 {
	return float64(n) / (1 << 20) / time.Since(begin).Seconds()
}

// spillObjects fills a store, puts total bytes more, and then reads total bytes
// of what went to disk. The rates are those that who puts and reads sees.
func spillObjects(ctx context.Context, open *spill.Dir, data []byte, total int64) (r spillRates, err error) {
	dir := &syncedDir{Dir: open}
	defer dir.close()
	host := spill.NewHost([]spill.Place{dir}, 4*total+spillStore)
	defer host.Close()
	s, err := objectstore.New(objectstore.Config{Capacity: spillStore, Disk: spill.NewDisk(host.Call)})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var objects []*objectstore.Object
	defer func() {
		for _, o := range objects {
			o.Release()
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("the disk takes too long"))
	defer cancel()
	put := func(n int64) error {
		for ; n > 0; n -= int64(len(data)) {
			v := objectstore.Value{Encoding: abi.EncodingRaw, Payload: data}
			id := wray.ID{Owner: 1, Seq: uint64(len(objects)) + 1}
			o, err := s.TryPut(id, v)
			if errors.Is(err, objectstore.ErrFull) {
				var r *objectstore.Reservation
				if r, err = s.WaitSpace(ctx, v.Size()); err == nil {
					o, err = r.Put(id, v)
				}
			}
			if err != nil {
				return err
			}
			objects = append(objects, o)
		}
		return nil
	}
	if err := put(spillStore); err != nil {
		return r, err
	}
	was, begin := s.Stats().Spilled, time.Now()
	if err := put(total); err != nil {
		return r, err
	}
	r.out = mibs(s.Stats().Spilled-was, begin)
	if err := dir.sync(); err != nil {
		return r, err
	}
	r.synced = mibs(s.Stats().Spilled-was, begin)
	begin = time.Now()
	was = s.Stats().Restored
	for _, o := range objects {
		v, err := o.WaitView(ctx)
		if err != nil {
			return r, err
		}
		v.Close()
		if s.Stats().Restored-was >= total {
			break
		}
	}
	r.back = mibs(s.Stats().Restored-was, begin)
	if lost := s.Stats().Lost; lost > 0 {
		return r, fmt.Errorf("%d objects were lost on disk", lost)
	}
	return r, nil
}

// plainFiles writes total bytes, syncs them, and reads them again.
func plainFiles(open *spill.Dir, data []byte, total int64) (r spillRates, err error) {
	var files []*os.File
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
	}()
	begin := time.Now()
	for done := int64(0); done < total; done += spillPlainAt {
		if done%spillFile == 0 {
			f, err := open.File()
			if err != nil {
				return r, err
			}
			files = append(files, f)
		}
		at := done % int64(len(data))
		if _, err := files[len(files)-1].Write(data[at : at+spillPlainAt]); err != nil {
			return r, err
		}
	}
	r.out = mibs(total, begin)
	if err := syncAll(files); err != nil {
		return r, err
	}
	r.synced = mibs(total, begin)
	buf := make([]byte, spillPlainAt)
	begin = time.Now()
	for done := int64(0); done < total; done += spillPlainAt {
		if _, err := files[done/spillFile].ReadAt(buf, done%spillFile); err != nil {
			return r, err
		}
	}
	r.back = mibs(total, begin)
	return r, nil
}
