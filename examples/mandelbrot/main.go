// Command mandelbrot draws the Mandelbrot set: each tile of the picture is a
// task, and the driver joins the tiles and writes a PNG to a directory that the
// job is granted.
//
//	wray run ./examples/mandelbrot --dir .:/out
//	wray run ./examples/mandelbrot --dir .:/out -- -size 1920x1080 -center -0.7436,0.1318 -width 0.005
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"math"
	"os"
	"path"

	"github.com/wray-project/wray/sdk"
)

// tileSize is the edge of a tile in pixels: 80 tiles of a picture of 640 × 480,
// so that those inside the set, which take longest, spread over all CPUs.
const tileSize = 64

// A view is what the picture shows.
type view struct {
	W, H    int     // pixels
	X, Y    float64 // the point in the middle
	Width   float64 // the part of the real axis that the picture spans
	Reached int     // steps after which a point counts as inside
}

// A tile is the part [X0,X1) × [Y0,Y1) of a picture, in pixels.
type tile struct{ X0, Y0, X1, Y1 int }

// render returns a tile's pixels, 4 bytes of RGBA each, row by row.
var render = sdk.Func2("render", func(_ context.Context, v view, t tile) ([]byte, error) {
	return pixels(v, t), nil
})

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	v, out, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	img, err := picture(ctx, v)
	if err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return fmt.Errorf("%w: grant the directory that holds it with --dir DIR:%s", err, path.Dir(out))
	}
	if err := errors.Join(png.Encode(f, img), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", out, err)
	}
	fmt.Printf("%s: %d x %d pixels\n", out, v.W, v.H)
	return nil
}

func parse(args []string) (v view, out string, err error) {
	fl := flag.NewFlagSet("mandelbrot", flag.ContinueOnError)
	size := fl.String("size", "640x480", "pixels of the picture, as `WxH`")
	center := fl.String("center", "-0.6,0", "the point in the middle, as `X,Y`")
	fl.Float64Var(&v.Width, "width", 3.4, "the part of the real axis that the picture spans")
	fl.IntVar(&v.Reached, "steps", 1000, "steps after which a point counts as inside")
	fl.StringVar(&out, "o", "/out/mandelbrot.png", "where the picture goes")
	if err := fl.Parse(args); err != nil {
		return v, "", err
	}
	if n, err := fmt.Sscanf(*size, "%dx%d", &v.W, &v.H); n != 2 || err != nil || v.W < 1 || v.H < 1 || v.W > 1<<14 || v.H > 1<<14 {
		return v, "", fmt.Errorf("-size %s: write WxH, each from 1 to %d", *size, 1<<14)
	}
	if n, err := fmt.Sscanf(*center, "%g,%g", &v.X, &v.Y); n != 2 || err != nil {
		return v, "", fmt.Errorf("-center %s: write X,Y", *center)
	}
	if !(v.Width > 0) || v.Reached < 1 {
		return v, "", errors.New("-width and -steps must be positive")
	}
	return v, out, nil
}

// picture has all tiles drawn and joins them.
func picture(ctx context.Context, v view) (*image.RGBA, error) {
	var tiles []tile
	var drawn []sdk.Ref[[]byte]
	for y := 0; y < v.H; y += tileSize {
		for x := 0; x < v.W; x += tileSize {
			t := tile{x, y, min(x+tileSize, v.W), min(y+tileSize, v.H)}
			tiles = append(tiles, t)
			drawn = append(drawn, render.Remote(ctx, v, t))
		}
	}
	img := image.NewRGBA(image.Rect(0, 0, v.W, v.H))
	for i, t := range tiles {
		pix, err := drawn[i].Get(ctx)
		if err != nil {
			return nil, err
		}
		drawn[i] = sdk.Ref[[]byte]{} // the object may go
		r := image.Rect(t.X0, t.Y0, t.X1, t.Y1)
		if len(pix) != 4*r.Dx()*r.Dy() {
			return nil, fmt.Errorf("tile %v has %d bytes", r, len(pix))
		}
		draw.Draw(img, r, &image.RGBA{Pix: pix, Stride: 4 * r.Dx(), Rect: r}, r.Min, draw.Src)
	}
	return img, nil
}

func pixels(v view, t tile) []byte {
	pix := make([]byte, 0, 4*(t.X1-t.X0)*(t.Y1-t.Y0))
	scale := v.Width / float64(v.W)
	for y := t.Y0; y < t.Y1; y++ {
		im := v.Y - (float64(y)+0.5-float64(v.H)/2)*scale
		for x := t.X0; x < t.X1; x++ {
			re := v.X + (float64(x)+0.5-float64(v.W)/2)*scale
			r, g, b := colour(escape(re, im, v.Reached))
			pix = append(pix, r, g, b, 255)
		}
	}
	return pix
}

// escape returns after how many steps of z = z² + c, from z = 0, the point
// c = re + i·im is far away, as a fraction of steps that changes smoothly over
// the plane, or -1 where it stays near for the given steps. The fraction is the
// normalised iteration count, n + 1 - log₂(ln |z|).
func escape(re, im float64, steps int) float64 {
	// The main cardioid and the disc to its left are inside, by closed formulas.
	if q := (re-0.25)*(re-0.25) + im*im; q*(q+re-0.25) <= im*im/4 || (re+1)*(re+1)+im*im <= 1.0/16 {
		return -1
	}
	var x, y float64
	for n := range steps {
		x, y = x*x-y*y+re, 2*x*y+im
		if r := x*x + y*y; r > 1<<16 {
			return max(0, float64(n)+1-math.Log2(math.Log(r)/2))
		}
	}
	return -1
}

// colour goes from deep blue through white and gold to black and round again,
// in steps that grow with the count: near the set many are close together.
func colour(n float64) (r, g, b uint8) {
	if n < 0 {
		return 0, 0, 0
	}
	stops := [...][3]float64{{0, 7, 100}, {32, 107, 203}, {237, 255, 255}, {255, 170, 0}, {0, 2, 0}}
	at := math.Sqrt(n) / 2
	i := int(at)
	f := at - float64(i)
	from, to := stops[i%len(stops)], stops[(i+1)%len(stops)]
	mix := func(k int) uint8 { return uint8(from[k] + (to[k]-from[k])*f) }
	return mix(0), mix(1), mix(2)
}
