"""The textbook way of the neighbours' networks, for :func:`scripts.dev.textbook.twin`.

Each does what the network it stems from does, with the same result, as one would write it down from the paper and its
program: all logits of a window, results that are then dropped, a grid for every warp, everything that a small network
is asked with at each place; in the default memory layout.
"""

import torch
from torch.nn import functional as F

from codes.baselines.san_model import SAN
from codes.baselines.spkdeblurnet_model import SpkDeblurNet
from codes.baselines.stir_model import STIR


def norm(layer, x: torch.Tensor) -> torch.Tensor:
    """Layer normalisation over the channels of ``(B, C, h, w)``, by its formula."""
    x = (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, unbiased=False, keepdim=True) + 1e-5)
    return x * layer.body.weight[:, None, None] + layer.body.bias[:, None, None]


def channel_attention(q, k, v, temperature: torch.Tensor) -> torch.Tensor:
    """Restormer's attention: the pixels of q and k normalised first, compared then."""
    (batch, _, height, width), heads = q.shape, len(temperature)
    q, k, v = (x.reshape(batch, heads, -1, height * width) for x in (q, k, v))
    weights = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * temperature
    return (weights.softmax(dim=-1) @ v).reshape(batch, -1, height, width)


class TextbookSpkDeblurNet(SpkDeblurNet):
    """All logits of a window, a mask made for each block, and the two groups whose results are dropped."""

    def forward(self, blur: torch.Tensor, spike: torch.Tensor, tfi: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As :meth:`SpkDeblurNet.forward`."""
        height, width = blur.shape[-2:]
        features = self._padded(self.D_conv_down(blur))
        features = features + self._groups(features, self.D_layers[:3])
        quick_sharp = self.D_mid_shuffle_up(features)[..., :height, :width]
        spikes = self._padded(self.S_conv_down(spike.to(blur.dtype)))
        for layer in self.S_layers[:3]:  # each is given the same
            found = self._groups(spikes, [layer])
        grey = 0.2989 * quick_sharp[:, :1] + 0.587 * quick_sharp[:, 1:2] + 0.114 * quick_sharp[:, 2:]
        masked = self._padded(self.conv_masked_blur(self.cammm(grey, tfi) * grey))
        spikes = self._fused(self.cross_attention_1, spikes + found, masked)
        deep = self._groups(spikes, self.S_layers[3:])
        spike_recon = self.S_shuffle_up(spikes + self.S_conv_after_body(deep))[..., :height, :width]
        features = self._fused(self.cross_attention_2, features, deep)
        features = features + self._groups(features, self.D_layers[3:])
        return self.D_last_shuffle_up(features)[..., :height, :width], spike_recon, quick_sharp

    def _padded(self, x):
        return F.pad(x, (0, -x.shape[-1] % 32, 0, -x.shape[-2] % 32), mode="reflect")

    def _fused(self, block, x, other):
        normal, other, attn = norm(block.norm1_model1, x), norm(block.norm1_model2, other), block.attn
        q, k, v = attn.q_dwconv(attn.q(normal)), attn.k_dwconv(attn.k(other)), attn.v_dwconv(attn.v(other))
        x = x + attn.project_out(channel_attention(q, k, v, attn.temperature))
        tokens = norm(block.norm1_model1_1, x).flatten(2).transpose(1, 2)
        return x + block.ffn(tokens).transpose(1, 2).reshape(x.shape)

    def _groups(self, x, layers):
        batch, channels, height, width = x.shape
        rows, columns = height // 8, width // 8
        for layer in layers:
            tokens = x.flatten(2).transpose(1, 2)
            for block in layer.residual_group["blocks"]:
                y = block.norm1(tokens).reshape(batch, height, width, channels)
                y = torch.roll(y, (-4, -4), (1, 2)) if block.shifted else y
                y = y.reshape(batch, rows, 8, columns, 8, channels).transpose(2, 3)
                y = self._attention(block, y.reshape(batch, rows * columns, 64, channels), height, width)
                y = y.reshape(batch, rows, columns, 8, 8, channels).transpose(2, 3)
                y = y.reshape(batch, height, width, channels)
                y = torch.roll(y, (4, 4), (1, 2)) if block.shifted else y
                tokens = tokens + y.reshape(batch, -1, channels)
                tokens = tokens + block.mlp(block.norm2(tokens))
            x = x + layer.last_layer(tokens.transpose(1, 2).reshape(x.shape))
        return x

    def _attention(self, block, x, height, width):
        attn, head = block.attn, x.shape[-1] // 6
        q, k, v = attn.qkv(x).reshape(*x.shape[:-1], 3, 6, head).permute(3, 0, 1, 4, 2, 5)
        logits = (q * head**-0.5) @ k.transpose(-2, -1)
        logits = logits + attn.relative_position_bias_table[attn.relative_position_index].permute(2, 0, 1)
        if block.shifted:
            region, bands = x.new_zeros(height, width), (slice(0, -8), slice(-8, -4), slice(-4, None))
            for index in range(9):
                region[bands[index // 3], bands[index % 3]] = index
            region = region.reshape(height // 8, 8, width // 8, 8).transpose(1, 2).reshape(-1, 64)
            logits = logits + torch.where(region[:, None] == region[:, :, None], 0.0, -100.0)[:, None]
        return attn.proj((logits.softmax(dim=-1) @ v).transpose(2, 3).reshape(x.shape))


def warps(first: torch.Tensor, last: torch.Tensor, flows: torch.Tensor) -> list[torch.Tensor]:
    """Two images ``(B, C, h, w)`` at (x + flow_x, y + flow_y) of their flows in ``(B, 4, h, w)``."""
    batch, _, height, width = flows.shape
    x = torch.linspace(-1, 1, width, device=flows.device).view(1, 1, 1, -1).expand(batch, 1, height, width)
    y = torch.linspace(-1, 1, height, device=flows.device).view(1, 1, -1, 1).expand(batch, 1, height, width)
    warped = []
    for image, flow in zip((first, last), flows.split(2, dim=1), strict=True):
        flow = torch.cat([flow[:, :1] / ((width - 1) / 2), flow[:, 1:] / ((height - 1) / 2)], dim=1)
        grid = (torch.cat([x, y], dim=1) + flow).permute(0, 2, 3, 1)
        warped.append(F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True))
    return warped


class TextbookSTIR(STIR):
    """Layer by layer, what is joined side by side as written."""

    def _pyramid(self, spike):
        def hidden_features(decoder, image, *others):
            image = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
            return decoder.resblocks(decoder.convrelu(torch.cat([image, *others], dim=1)))

        blocks = [spike[:, :21], spike[:, 20:41], spike[:, 40:]]
        means = [torch.stack([x[:, i : 21 - i].mean(dim=1) for i in (0, 2, 4, 6, 8)], dim=1) for x in blocks]
        embedded = torch.cat([torch.cat(means), self.resnet(torch.cat(blocks))], dim=1)
        features = [x.chunk(3) for x in (embedded, *self.encoder(embedded))]
        image, flows, hidden = self.decorder_5nd(self._interaction(*features[4]))
        images = [image]
        for level, decoder in ((3, self.decorder_4nd), (2, self.decorder_3rd), (1, self.decorder_2nd)):
            first, middle, last = features[level]
            start = decoder.deconv_flow(flows)
            others = middle, *warps(first, last, start), decoder.deconv_hidden(hidden), start
            hidden = hidden_features(decoder, image, *others)
            predicted = decoder.predict_img_flow(hidden)
            flows, image = predicted[:, :4] + start, predicted[:, 4:]
            images.insert(0, image)
        decoder, (first, middle, last) = self.decorder_1st, features[0]
        main = decoder.deconv_flow(flows)
        group = decoder.deconv_flow_group(decoder.predict_flow_group(hidden) + torch.cat([start, start], dim=1))
        warped = [x for motion in (main, group[:, :4], group[:, 4:]) for x in warps(first, last, motion)]
        hidden = hidden_features(decoder, image, middle, *warped, decoder.deconv_hidden(hidden), main, group)
        return [decoder.predict_img(hidden), *images]

    def _interaction(self, first, middle, last):
        net, attn = self.transformer, self.transformer.attn
        q1, q2 = attn.q_dwconv(attn.q(norm(net.norm1, middle))).chunk(2, dim=1)
        k1, v1 = attn.kv1_dwconv(attn.kv1(norm(net.norm_kv1, first))).chunk(2, dim=1)
        k2, v2 = attn.kv2_dwconv(attn.kv2(norm(net.norm_kv2, last))).chunk(2, dim=1)
        before, after = (
            net.ffn(norm(net.norm2, channel_attention(*parts)))
            for parts in ((q1, k1, v1, attn.temperature1), (q2, k2, v2, attn.temperature2))
        )
        return torch.cat([before, middle, after], dim=1)


class TextbookSAN(SAN):
    """The small network with all its inputs at each pixel, four times, its answers blended at last."""

    def forward(self, events: torch.Tensor, blur: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`SAN.forward`."""
        joined = []
        pairs = zip(self.im_enc(2 * blur - 1), self.ev_enc(events.to(blur.dtype)), strict=True)
        for level, pair in enumerate(pairs, 1):
            fusion = getattr(self, f"msff{level}")
            joined.append(self._deformed(fusion.dcn, self._implicit(fusion.mlp.imnet["layers"], *pair)))
        ratio = F.softplus(self.dec(joined))
        return blur * ratio, ratio

    def _deformed(self, dcn, x):
        from torchvision.ops import deform_conv2d

        taps = dcn.weight[0, 0].numel()
        offset, mask = dcn.conv_offset_mask(x).split([2 * taps, taps], dim=1)
        padding = dcn.weight.shape[-1] // 2
        return deform_conv2d(x, offset, dcn.weight, dcn.bias, padding=padding, mask=torch.sigmoid(mask))

    def _implicit(self, network, image, events):
        def middles(shape):  # of the pixels: (B, h, w, 2) from -1 to 1, y first
            axes = [(2 * torch.arange(n).to(image) + 1) / n - 1 for n in shape[-2:]]
            return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).expand(shape[0], -1, -1, -1)

        def nearest(x, places):
            return F.grid_sample(x, places.flip(-1), mode="nearest", align_corners=False).permute(0, 2, 3, 1)

        pixels, cells = middles(image.shape), middles(events.shape).permute(0, 3, 1, 2)
        sides, cell_sides = (torch.tensor(x.shape[-2:]).to(image) for x in (image, events))
        size, answers, areas = (2 / sides * cell_sides).expand_as(pixels), [], []
        for offset in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            places = pixels + torch.tensor(offset).to(image) / cell_sides + 1e-6
            places = places.clamp(-1 + 1e-6, 1 - 1e-6)
            relative = (pixels - nearest(cells, places)) * cell_sides
            asked = torch.cat([nearest(events, places), relative, size, nearest(image, places)], dim=-1)
            answers.append(network(asked))
            areas.append(relative.prod(dim=-1, keepdim=True).abs() + 1e-9)
        shares = [area / sum(areas) for area in reversed(areas)]  # each counts by the area on the far side
        blended = sum(answer * share for answer, share in zip(answers, shares, strict=True))
        return blended.permute(0, 3, 1, 2).contiguous()
