package chaos

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"
)

// copyEnv has this binary be an end of the bare copy: "serve ADDR" or "read ADDR".
const copyEnv = "WRAY_TEST_COPY"

const transferred = 128 << 20 // bytes of an object, and of a copy

// bareCopy is one end of a copy over TLS with nothing around it.
func bareCopy(what string) error {
	verb, addr, _ := strings.Cut(what, " ")
	if verb == "read" {
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
		if err != nil {
			return err
		}
		defer c.Close()
		begun := time.Now()
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, c, make([]byte, 1<<20))
		if err == nil && n != transferred {
			err = fmt.Errorf("%d bytes came", n)
		}
		fmt.Println(time.Since(begun).Nanoseconds())
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		return err
	}
	l, err := tls.Listen("tcp", addr, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}})
	if err != nil {
		return err
	}
	fmt.Println("listens")
	block := make([]byte, 1<<20)
	_, _ = rand.Read(block)
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		for range transferred / len(block) {
			if _, err := c.Write(block); err != nil {
				return err
			}
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
}

// BenchmarkTransfer reads large objects from another host, in turn with a bare
// copy over TLS between the same hosts.
func BenchmarkTransfer(b *testing.B) {
	c := newCluster(b, "head", "driver", "three")
	from, to := c.others[0].host, c.driver.host
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	addr := from.addr + ":7500"
	server := from.command(self)
	server.Env = append(os.Environ(), copyEnv+"=serve "+addr)
	out, err := server.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		b.Fatal(line, err)
	}
	j := c.begin("transfer", transferred)
	j.round(nil)
	var bare, objects time.Duration
	for b.Loop() {
		j.tell("on")
		j.round(nil)
		ns := int64(0)
		if _, err := fmt.Sscanf(j.said, "ns=%d", &ns); err != nil {
			b.Fatal(err, j.said)
		}
		objects += time.Duration(ns)
		read := to.command(self)
		read.Env = append(os.Environ(), copyEnv+"=read "+addr)
		said, err := read.Output()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := fmt.Sscanf(string(said), "%d", &ns); err != nil {
			b.Fatal(err, said)
		}
		bare += time.Duration(ns)
	}
	j.tell("end")
	mib := float64(b.N) * transferred / (1 << 20)
	b.ReportMetric(mib/objects.Seconds(), "MiB/s")
	b.ReportMetric(mib/bare.Seconds(), "bare-MiB/s")
	b.ReportMetric(100*bare.Seconds()/objects.Seconds(), "%-of-bare")
}

// BenchmarkBroadcast has tasks on eight hosts read one value of the driver's at one
// time, and says how often it left the driver's host.
func BenchmarkBroadcast(b *testing.B) {
	const size = 256 << 20
	defer func(before string) { storeSize = before }(storeSize)
	storeSize = "600MiB"
	names := []string{"head", "driver"}
	for i := range 8 {
		names = append(names, fmt.Sprintf("n%d", i))
	}
	c := newCluster(b, names...)
	j := c.begin("broadcast", size)
	j.round(nil) // compiles
	var took time.Duration
	var sent int64
	for b.Loop() {
		before := c.driver.host.sent()
		j.tell("on")
		j.round(nil)
		sent += c.driver.host.sent() - before
		ns := int64(0)
		if _, err := fmt.Sscanf(j.said, "ns=%d", &ns); err != nil {
			b.Fatal(err, j.said)
		}
		took += time.Duration(ns)
	}
	j.tell("end")
	b.ReportMetric(float64(sent)/size/float64(b.N), "copies-out")
	b.ReportMetric(took.Seconds()/float64(b.N), "s/broadcast")
}
