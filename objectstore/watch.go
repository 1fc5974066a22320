package objectstore

// Watcher is told that an object is ready.
type Watcher interface {
	// ObjectReady is called once for each watch, in the goroutine that made
	// the object ready, or in Watch where it was ready already. No lock of the
	// store is held, so it may call the store; it must not block. The object
	// is lent for the length of the call: retain it to keep it.
	ObjectReady(o *Object)
}

// WatcherFunc is a function as a Watcher.
type WatcherFunc func(*Object)

// ObjectReady calls f.
func (f WatcherFunc) ObjectReady(o *Object) { f(o) }

// Watch is a pending notification. It holds a reference on its object until it
// was delivered or canceled, so what is watched does not go.
type Watch struct {
	object  *Object
	watcher Watcher

	// next, prev and listed are guarded by object.mu until the list is taken;
	// then next belongs to the goroutine that notifies.
	next, prev *Watch
	listed     bool
}

// Watch has w told, once, when the object is ready: at once, before Watch
// returns, where it is ready already. The result cancels the notification; it
// is nil where there is nothing to cancel.
func (o *Object) Watch(w Watcher) *Watch {
	if !o.Ready() {
		if h := o.watchPending(w); h != nil {
			return h
		}
	}
	w.ObjectReady(o)
	return nil
}

// watchPending enters a watch, or returns nil where o became ready.
func (o *Object) watchPending(w Watcher) *Watch {
	h := &Watch{object: o, watcher: w}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.Ready() {
		return nil
	}
	o.Retain() // the watch's own, given back by notify or Cancel
	o.watches.push(h)
	return h
}

// Cancel withdraws the notification. True: the watcher was not and will not be
// called. False: it was, or is being called. A nil Watch was delivered.
func (h *Watch) Cancel() bool {
	if h == nil {
		return false
	}
	o := h.object
	o.mu.Lock()
	ok := h.listed
	if ok {
		o.watches.remove(h)
	}
	o.mu.Unlock()
	if ok {
		o.Release()
	}
	return ok
}

// watchList is a doubly linked list, oldest first.
type watchList struct{ head, tail *Watch }

func (l *watchList) push(h *Watch) {
	h.listed, h.prev = true, l.tail
	if l.tail == nil {
		l.head = h
	} else {
		l.tail.next = h
	}
	l.tail = h
}

func (l *watchList) remove(h *Watch) {
	if h.prev == nil {
		l.head = h.next
	} else {
		h.prev.next = h.next
	}
	if h.next == nil {
		l.tail = h.prev
	} else {
		h.next.prev = h.prev
	}
	h.next, h.prev, h.listed = nil, nil, false
}

// takeAll empties the list and returns what was in it, no longer listed.
func (l *watchList) takeAll() watchList {
	t := *l
	*l = watchList{}
	for h := t.head; h != nil; h = h.next {
		h.listed = false
	}
	return t
}

// notify tells each watcher and gives the watches' references back.
func (l watchList) notify(o *Object) {
	for h := l.head; h != nil; {
		next := h.next
		h.next, h.prev = nil, nil
		h.watcher.ObjectReady(o)
		o.Release()
		h = next
	}
}
